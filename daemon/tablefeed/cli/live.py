"""`tablefeed status --watch`: the picture, drawn anew every second."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from types import FrameType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tablefeed.cli.looking import Daemon, Picture
from tablefeed.cli.picture import drawn
from tablefeed.errors import Fatal

PERIOD = 1.0
"""Seconds between two looks."""
PATIENCE = 3.0
"""Seconds that the daemon gets for its answer."""


class Story:
    """What to tell beside the picture: that the daemon ended, or began anew, since one has been watching."""

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self._last: Daemon | None = None
        self._told = ""

    def note(self, daemon: Daemon, at: datetime) -> str:
        """What is to be told now."""
        last, self._last = self._last, daemon
        if last is not None and last.answers and not daemon.answers:
            self._told = f"It stopped answering at {at:%H:%M:%S}."
        elif last is not None and daemon.answers and not last.answers:
            self._told = f"It answers again since {at:%H:%M:%S}."
        elif last is not None and daemon.process != last.process:
            self._told = f"It was started anew at {at:%H:%M:%S}."
        return self._told


def watch(
    look: Callable[[], Picture], console: Console, *, sleep: Callable[[float], None], clock: Callable[[], datetime]
) -> None:
    """Draw what `look` sees until Ctrl-C or SIGTERM, and leave the last picture. Raises Fatal from the first look."""
    story = Story()
    picture = look()
    with _terminated_like_interrupted(), Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                now = clock()
                note = story.note(picture.daemon, now)
                foot = Text(f"{now:%H:%M:%S}  {note and note + '  '}Ctrl-C ends this view.", style="dim")
                live.update(Group(drawn(picture, console.width, bars=True), Text(), foot), refresh=True)
                sleep(PERIOD)
                picture = _again(look, picture)
        except KeyboardInterrupt:
            return


def _again(look: Callable[[], Picture], last: Picture) -> Picture:
    """The next picture; where there is none, the last one with the reason why."""
    try:
        return look()
    except Fatal as error:
        daemon = Daemon(answers=False, process=None, runs=False, reason=error.what, remedy=error.remedy)
        return replace(last, daemon=daemon, snapshot={**last.snapshot, "ok": False, "headline": error.what})


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM would leave the terminal without its cursor."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
