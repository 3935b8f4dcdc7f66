"""The live view: what it tells of a daemon that ends and begins, and of trouble with looking."""

import io
from collections.abc import Iterator
from datetime import datetime

from rich.console import Console

from tablefeed.cli.live import Story, watch
from tablefeed.cli.looking import Daemon, Picture
from tablefeed.errors import LedgerUnusable

AT = datetime(2026, 3, 2, 12, 0, 0).astimezone()
UP = Daemon(answers=True, process=7, runs=True)
ANEW = Daemon(answers=True, process=8, runs=True)
DOWN = Daemon(answers=False, process=None, runs=False)


def test_nothing_is_told_while_nothing_happens() -> None:
    """Whether it ran at the first look or not."""
    for daemon in (UP, DOWN):
        story = Story()
        assert [story.note(daemon, AT) for _ in range(3)] == ["", "", ""]


def test_the_last_change_stays_told() -> None:
    """That it ended, that it is back, and that another process took its place between two looks."""
    story = Story()
    notes = [story.note(daemon, AT) for daemon in (UP, DOWN, DOWN, UP, ANEW, ANEW)]
    ended, back, anew = "It stopped answering at ", "It answers again since ", "It was started anew at "
    assert notes == ["", *[f"{text}12:00:00." for text in (ended, ended, back, anew, anew)]]


def test_trouble_with_looking_is_shown_and_the_view_goes_on() -> None:
    """Over the last picture, until Ctrl-C."""

    def looks() -> Iterator[Picture]:
        yield Picture(UP, {"ok": True, "headline": "all is well", "feeds": [{"name": "orders", "state": "ok"}]})
        raise LedgerUnusable("the ledger is damaged", "Move it aside")

    def sleep(_seconds: float) -> None:
        slept.append(None)
        if len(slept) == 2:
            raise KeyboardInterrupt

    slept: list[None] = []
    seen = looks()
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
    watch(lambda: next(seen), console, sleep=sleep, clock=lambda: AT)
    assert isinstance(console.file, io.StringIO)
    first, _, then = console.file.getvalue().partition("Ctrl-C ends this view.")
    assert "All is well." in first
    for text in ("The ledger is damaged.", "Move it aside.", "orders", "It stopped answering at 12:00:00."):
        assert text in then
