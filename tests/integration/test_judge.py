"""What follows for real files, on clocks that the test sets."""

from pathlib import Path

from support.intake import make_feed
from support.ledgers import Clock
from tablefeed.clock import WatchedClock
from tablefeed.model import Ready
from tablefeed.readiness import Rules, Settled, Wait
from tablefeed.watch.judge import Judge


def test_a_clock_that_is_set_ahead_makes_no_file_old(tmp_path: Path) -> None:
    """Right after the step a file has to be quiet once more, by the time that passes from then on."""
    path = tmp_path / "a.csv"
    path.write_text("half of it")
    wall, ticks = Clock(path.stat().st_ctime + 0.1), Clock(5.0)
    feed = make_feed(tmp_path, ready=Ready.STABLE, settle=10.0)
    judge = Judge(feed, Rules.of(feed), clock=WatchedClock(wall, ticks), pause=1.0)
    [first] = judge.judge([("a.csv", path.lstat(), None)])
    assert isinstance(first.decision, Wait)
    wall.now += 3_600
    [after] = judge.judge([("a.csv", path.lstat(), first.history)])
    assert isinstance(after.decision, Wait)
    wall.now += 10.1
    ticks.now += 10.1
    [settled] = judge.judge([("a.csv", path.lstat(), after.history)])
    assert isinstance(settled.decision, Settled)
