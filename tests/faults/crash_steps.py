"""The steps at which a daemon can be killed: each is one call of one method, before it or after it."""

import inspect
import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.archive import as_path
from tablefeed.archive import Archiver
from tablefeed.archive.marker import Marker
from tablefeed.archive.moves import Disk
from tablefeed.ledger import Ledger
from tablefeed.model import OWN_PREFIX
from tablefeed.upload import Uploader
from tablefeed.upload.body import FileBody


def _any(*_: Any) -> bool:
    return True


def _ends(suffix: str) -> Callable[..., bool]:
    """Some path of the call is our own hidden one with this suffix."""
    return lambda *arguments: any(
        path.name.startswith(OWN_PREFIX) and path.name.endswith(suffix) for path in arguments if isinstance(path, Path)
    )


def _is_taken(path: Path) -> bool:
    """A dropped file under its hidden name: neither a copy nor a report nor a marker."""
    return path.name.startswith(OWN_PREFIX) and not path.name.endswith(("-copy", "-report", "-marker"))


@dataclass(frozen=True, slots=True)
class Step:
    """Before the call of a method, or after it, where its arguments are as wanted."""

    owner: type
    method: str
    after: bool = False
    when: Callable[..., bool] = _any


PHASES = {
    "queue": {
        "before the queue": Step(Ledger, "enqueue"),
        "after the queue": Step(Ledger, "enqueue", after=True),
        "before the grant is kept": Step(Ledger, "granted"),
        "after the grant is kept": Step(Ledger, "granted", after=True),
    },
    "upload": {
        "before the PUT": Step(Uploader, "upload"),
        "in the body": Step(FileBody, "_read"),
        "after the body": Step(FileBody, "write", after=True),
        "after the 2xx": Step(Ledger, "uploaded"),
        "after the commit of uploaded": Step(Ledger, "uploaded", after=True),
    },
    "rename": {
        "before the move": Step(Archiver, "move_delivered"),
        "file taken": Step(Disk, "take", after=True, when=lambda _source, ours: _is_taken(ours)),
        "file renamed": Step(Disk, "rename", after=True, when=lambda source, _target: _is_taken(source)),
        "before the commit of archived": Step(Ledger, "archived"),
        "after the commit of archived": Step(Ledger, "archived", after=True),
    },
    "copy": {
        "copy half written": Step(Disk, "write"),
        "copy sealed": Step(Disk, "seal", after=True),
        "copy named": Step(Disk, "rename", after=True, when=_ends("-copy")),
        "between copy and unlink": Step(Disk, "unlink", when=_is_taken),
        "source removed": Step(Disk, "unlink", after=True, when=_is_taken),
    },
    "refusal": {
        "after the commit of rejected": Step(Ledger, "rejected", after=True),
        "after the commit of refuse": Step(Ledger, "refuse", after=True),
        "report published": Step(Disk, "rename", after=True, when=_ends("-report")),
        "before the commit of set_aside": Step(Ledger, "set_aside"),
    },
    "marker": {
        "marker taken": Step(Disk, "take", after=True, when=_ends("-marker")),
        "before the marker goes": Step(Marker, "carry"),
        "marker renamed": Step(Disk, "rename", after=True, when=_ends("-marker")),
        "between the marker's copy and unlink": Step(Disk, "unlink", when=_ends("-marker")),
        "after the marker went": Step(Marker, "carry", after=True),
    },
}
STEPS = {name: step for phase in PHASES.values() for name, step in phase.items()}


def arm(step: Step, nth: int) -> None:
    """Let the nth such call kill this process; for the instant after it, the nth that succeeds."""
    method = getattr(step.owner, step.method)
    numbers = itertools.count(1)

    def count(arguments: tuple[Any, ...]) -> None:
        if step.when(*map(as_path, arguments)) and next(numbers) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def mortal(self: Any, *arguments: Any, **options: Any) -> Any:
        if step.after:
            result = method(self, *arguments, **options)
            count(arguments)
            return result
        count(arguments)
        return method(self, *arguments, **options)

    async def mortal_async(self: Any, *arguments: Any, **options: Any) -> Any:
        if step.after:
            result = await method(self, *arguments, **options)
            count(arguments)
            return result
        count(arguments)
        return await method(self, *arguments, **options)

    setattr(step.owner, step.method, mortal_async if inspect.iscoroutinefunction(method) else mortal)
