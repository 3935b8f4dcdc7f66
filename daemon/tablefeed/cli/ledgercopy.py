"""`tablefeed ledger copy`: a ledger moves to another database."""

import socket
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tablefeed.cli.words import plural, shown
from tablefeed.config.addresses import LedgerUrl
from tablefeed.config.fields import NodeName, checked
from tablefeed.errors import Exit
from tablefeed.ledger.copy import Contents, Copied, copy_ledger
from tablefeed.ledger.engine import describe, sqlite_file
from tablefeed.ledger.sides import Place, placed

_OPTIONS = {"source": ("--from", "TABLEFEED_LEDGER_FROM"), "target": ("--to", "TABLEFEED_LEDGER_TO")}


def copy(source: str, target: str, node: str | None, typed: Collection[str]) -> None:
    """Copy, and say what was done; ends with 1 when the sides are not the same then.

    `typed`: which of source and target stood in the arguments.
    """
    urls = {name: _url(name, url, name in typed) for name, url in (("source", source), ("target", target))}
    source, target = urls["source"], urls["target"]
    if _is_same(source, target):
        raise typer.BadParameter("it is the ledger of --from", param_hint="--to")
    with _bar() as told:
        copied = copy_ledger(source, target, _place(source, target, node), told)
    sys.stdout.writelines(f"{line}\n" for line in _lines(copied, describe(source), describe(target)))
    if not copied.is_whole:
        sys.stderr.write("tablefeed: the sides are not the same. Empty the target, and copy again\n")
        sys.exit(Exit.UNDELIVERED)


def _url(name: str, url: str, typed: bool) -> str:  # noqa: FBT001 - it only words the refusal
    option, variable = _OPTIONS[name]
    try:
        right = checked(LedgerUrl, url)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option if typed else variable) from None
    parsed = sa.make_url(right)
    if typed and (parsed.password is not None or any("password" in key.lower() for key in parsed.query)):
        raise typer.BadParameter(
            f"a password does not belong in an argument, which everybody sees: give the URL in ${variable}, or the "
            "password in $PGPASSWORD or the file that $PGPASSFILE names; and change this one",
            param_hint=option,
        )
    return right


def _is_same(source: str, target: str) -> bool:
    one, other = sqlite_file(source), sqlite_file(target)
    if one is not None and other is not None:
        return one.resolve() == other.resolve()
    return describe(source) == describe(target)


def _place(source: str, target: str, node: str | None) -> Place:
    try:
        name = None if node is None else checked(NodeName, node)
        return placed(
            from_server=sqlite_file(source) is None,
            to_server=sqlite_file(target) is None,
            node=name or None,
            host=socket.gethostname(),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--node") from None


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("copying and comparing"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        bar = bars.add_task("", total=None)
        yield lambda done, every: bars.update(bar, completed=done, total=every)


def _lines(copied: Copied, source: str, target: str) -> Iterator[str]:
    there = sum(copied.source.rows.values()) - copied.added
    yield f"{shown(source)} is copied to {shown(target)}: {plural(copied.added, 'row')} added, {there} were there."
    if copied.is_whole:
        yield f"Both hold {_holdings(copied.source)}; checksum {copied.source.checksum}."
    else:
        for name, contents in ((source, copied.source), (target, copied.target)):
            yield f"{shown(name)} holds {_holdings(contents)}; checksum {contents.checksum}."
    if copied.released:
        yield f"{plural(copied.released, 'file')} in flight: queued again, to be sent to the same objects."
    if copied.is_whole:
        yield "Set [ledger] url to the new one before a daemon starts again, and keep the old one from being used."


def _holdings(contents: Contents) -> str:
    states = ", ".join(f"{count} {state}" for state, count in sorted(contents.states.items()))
    rows = contents.rows
    files = plural(rows["files"], "file") + (f" ({states})" if states else "")
    others = (("outbox", "event"), ("feeds", "feed"), ("datasets", "dataset"), ("announced", "trouble"))
    return ", ".join([files, *(plural(rows[table], noun) for table, noun in others if rows[table])])
