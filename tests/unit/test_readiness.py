from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablefeed.lease import Writer
from tablefeed.model import LARGEST_PUT, FileVersion, Ready
from tablefeed.readiness import (
    Decision,
    History,
    Ignore,
    Marker,
    Observation,
    Refuse,
    Rules,
    Settled,
    Wait,
    advance,
    decide,
    worth_probing,
)

NOW = 1_700_000_000.0
RULES = Rules(Ready.CLOSED, settle=2.0, marker_suffix=".done", empty_after=600.0, max_size=1000)
STABLE = replace(RULES, ready=Ready.STABLE)
MARKED = replace(RULES, ready=Ready.MARKER)
FAR_FUTURE = 4_102_444_800.0


def ns(seconds: float) -> int:
    return round(seconds * 1e9)


def seen(
    *,
    at: float = NOW,
    path: str = "a.csv",
    size: int = 10,
    mtime: float = NOW - 100,
    ctime: float = NOW - 100,
    writer: Writer = Writer.NONE,
    readable: bool = True,
    regular: bool = True,
    marker: float | None = None,
) -> Observation:
    return Observation(
        version=FileVersion("orders", path, 1, 2, size, ns(mtime)),
        ctime_ns=ns(ctime),
        regular=regular,
        taken_at=at,
        writer=writer,
        readable=readable,
        marker=None if marker is None else Marker(ns(marker), ns(marker)),
    )


def verdict(observation: Observation, rules: Rules = RULES, *, since: float | None = None) -> Decision:
    """What is decided when the file has looked like this since `since`, or is seen for the first time."""
    history = advance(None, observation if since is None else replace(observation, taken_at=since))
    history = advance(history, observation)
    return decide(observation, history, rules, observation.taken_at)


@pytest.mark.parametrize("path", ["a.csv", "sub/ä.csv"])
def test_a_quiet_file_without_a_writer_is_settled_at_first_sight(path: str) -> None:
    """Nothing is waited for when the times and the kernel both say that the file is left alone."""
    assert verdict(seen(path=path)) == Settled()


def test_a_fresh_file_waits_for_the_rest_of_its_quiet_time() -> None:
    """The wait ends when `settle` has passed since the last change, and at that very moment it is not over."""
    assert verdict(seen(mtime=NOW - 5, ctime=NOW - 0.5)) == Wait(NOW + 1.5, "it changed a moment ago")
    assert verdict(seen(ctime=NOW - 2.0)) == Wait(NOW, "it changed a moment ago")


def test_an_old_mtime_does_not_settle_a_fresh_copy() -> None:
    """`cp -p` and `rsync -t` set the mtime back; the ctime tells when the bytes came."""
    assert isinstance(verdict(seen(mtime=NOW - 1e6, ctime=NOW - 0.1)), Wait)
    assert isinstance(verdict(seen(mtime=NOW - 1e6, ctime=NOW - 0.1), STABLE, since=NOW - 5), Wait)


@pytest.mark.parametrize("rules", [RULES, STABLE, MARKED])
def test_an_open_writer_is_waited_for_in_every_mode(rules: Rules) -> None:
    """However long the file was quiet, it is not whole while somebody has it open for writing."""
    decision = verdict(seen(writer=Writer.OPEN, marker=NOW - 50), rules, since=NOW - 50)
    assert decision == Wait(NOW + 2.0, "a process has it open for writing")


def test_an_open_file_is_not_looked_at_in_a_loop_without_settle() -> None:
    """A close gives no event, so that even with settle = 0 there is a pause between two looks."""
    decision = verdict(seen(writer=Writer.OPEN), replace(RULES, settle=0.0))
    assert isinstance(decision, Wait)
    assert decision.until is not None
    assert decision.until >= NOW + 0.5


@pytest.mark.parametrize("rules", [replace(RULES, settle=2.0), STABLE])
@pytest.mark.parametrize(("since", "settled"), [(NOW, False), (NOW - 1.9, False), (NOW - 2.0, True)])
def test_where_the_kernel_cannot_tell_two_equal_looks_must_do(rules: Rules, since: float, settled: bool) -> None:
    """With an unknown writer, and always in `stable`, the file must look the same for `settle` by our own clock."""
    decision = verdict(seen(writer=Writer.UNKNOWN), rules, since=since)
    assert decision == (Settled() if settled else Wait(since + 2.0, "it has not been seen unchanged for long enough"))


@pytest.mark.parametrize(("mtime", "ctime"), [(FAR_FUTURE, NOW - 100), (FAR_FUTURE, FAR_FUTURE), (NOW - 100, NOW + 60)])
def test_a_time_in_the_future_makes_no_file_wait_for_ever(mtime: float, ctime: float) -> None:
    """Such a time proves nothing, so that our own clock decides: not at first sight, but after `settle`."""
    assert isinstance(verdict(seen(mtime=mtime, ctime=ctime)), Wait)
    assert verdict(seen(mtime=mtime, ctime=ctime), since=NOW - 2.1) == Settled()


def test_a_future_mtime_does_not_hide_a_fresh_change() -> None:
    """The ctime still counts beside an mtime that was set ahead."""
    assert isinstance(verdict(seen(mtime=FAR_FUTURE, ctime=NOW - 1), since=NOW - 60), Wait)


def test_a_marker_settles_a_fresh_file_at_once() -> None:
    """The producer has said that the file is whole, so that no quiet time is waited for."""
    assert verdict(seen(mtime=NOW - 0.1, ctime=NOW - 0.1, marker=NOW - 0.05), MARKED) == Settled()


@pytest.mark.parametrize(
    ("marker", "reason"),
    [
        (None, "the marker file a.csv.done is not there yet"),
        (NOW - 20, "the marker file a.csv.done is older than the file"),
    ],
)
def test_a_file_waits_for_its_own_marker(marker: float | None, reason: str) -> None:
    """Without a marker, or with that of an older drop, the file waits for an event or a scan."""
    assert verdict(seen(mtime=NOW - 10, marker=marker), MARKED, since=NOW - 1e6) == Wait(None, reason)


def test_a_marker_counts_for_a_file_from_the_future() -> None:
    """No marker could ever be younger than an mtime that was set ahead."""
    assert verdict(seen(mtime=FAR_FUTURE, marker=NOW - 20), MARKED) == Settled()


def test_marker_files_are_not_delivered() -> None:
    """A marker that the patterns take is ignored in marker mode, and is a file like any other elsewhere."""
    assert verdict(seen(path="a.csv.done", marker=NOW), MARKED) == Ignore("it is a marker file")
    assert verdict(seen(path="a.csv.done")) == Settled()


def test_what_is_not_a_file_is_ignored() -> None:
    """Directories, links, pipes and sockets are nothing to deliver."""
    assert isinstance(verdict(seen(regular=False)), Ignore)


def test_an_empty_file_waits_and_is_refused_in_the_end() -> None:
    """Producers make placeholders; one that was never filled is set aside, or lies for ever where that is asked for."""
    assert verdict(seen(size=0)) == Wait(NOW + 500.0, "it is empty")
    assert isinstance(verdict(seen(size=0, mtime=NOW - 700, ctime=NOW - 601)), Refuse)
    forever = replace(RULES, empty_after=0.0)
    assert verdict(seen(size=0, mtime=0, ctime=0), forever) == Wait(None, "it is empty")


def test_a_placeholder_that_is_still_open_is_not_refused() -> None:
    """An export may think for longer than `empty_after` before it writes its first row."""
    assert isinstance(verdict(seen(size=0, mtime=0, ctime=0, writer=Writer.OPEN)), Wait)


def test_an_unreadable_file_gets_a_grace() -> None:
    """Permissions are often given right after the file was made; only then is it refused."""
    unreadable = seen(writer=Writer.UNKNOWN, readable=False, mtime=NOW - 40, ctime=NOW - 40)
    assert verdict(unreadable, since=NOW - 30) == Wait(NOW + 20.0, "it may not be read")
    assert isinstance(verdict(replace(unreadable, ctime_ns=ns(NOW - 61), taken_at=NOW + 21), since=NOW - 30), Refuse)


@pytest.mark.parametrize(("most", "remedy"), [(1000, "raise upload.max_size"), (LARGEST_PUT, "no more in one PUT")])
def test_a_limit_that_can_be_raised_no_more_is_not_to_be_raised(most: int, remedy: str) -> None:
    """Where `max_size` is as high as it may be, raising it is no remedy."""
    refused = verdict(seen(size=most + 1), replace(RULES, max_size=most))
    assert isinstance(refused, Refuse)
    assert remedy in refused.remedy
    assert ("raise" in refused.remedy) == (most < LARGEST_PUT)


@pytest.mark.parametrize(("path", "size"), [("a\udcff.csv", 10), ("d\udcff/a.csv", 10), ("a.csv", 1001)])
def test_what_can_never_be_sent_is_refused_once_it_is_whole(path: str, size: int) -> None:
    """A name that is not UTF-8 and a size over the limit are told with a remedy, and not while the file is written."""
    assert isinstance(verdict(seen(path=path, size=size, ctime=NOW - 1)), Wait)
    assert isinstance(verdict(seen(path=path, size=size, writer=Writer.OPEN)), Wait)
    refusal = verdict(seen(path=path, size=size))
    assert isinstance(refusal, Refuse)
    assert refusal.remedy
    assert verdict(seen(size=1000)) == Settled()


@pytest.mark.parametrize(
    "change", [{"size": 11}, {"mtime": NOW - 99}, {"ctime": NOW - 99}], ids=lambda change: next(iter(change))
)
def test_a_history_starts_anew_when_the_file_looks_different(change: dict[str, float]) -> None:
    """Any difference counts, a changed ctime alone too."""
    history = advance(None, seen(at=NOW - 10))
    assert advance(history, seen(at=NOW)) is history
    assert advance(history, seen(at=NOW, **change)).since == NOW  # type: ignore[arg-type]


def test_a_history_starts_anew_when_the_clock_goes_back() -> None:
    """Else the file would wait until the clock is where it was."""
    assert advance(advance(None, seen(at=NOW + 3600)), seen(at=NOW)).since == NOW


def test_only_what_may_be_final_is_worth_opening() -> None:
    """A scan opens no file that waits anyway, and none that is refused without having been probed."""
    history = History(seen().version, seen().ctime_ns, NOW)
    glance = seen(writer=Writer.UNKNOWN)
    assert worth_probing(glance, history, RULES, NOW)
    assert worth_probing(replace(glance, version=replace(glance.version, size=2000)), history, RULES, NOW)
    assert not worth_probing(seen(writer=Writer.UNKNOWN, ctime=NOW - 1), history, RULES, NOW)
    assert not worth_probing(seen(regular=False), history, RULES, NOW)


# What a producer may do to a file, each with the seconds until the next event.
ACTS = st.sampled_from(
    ["write", "open", "close", "chmod", "set mtime back", "set mtime ahead", "set the clock back", "look", "look"]
)
EVENTS = st.lists(st.tuples(ACTS, st.floats(0.01, 5.0)), max_size=25)


class Drop:
    """A file that a producer works on, as it is seen by a clock that may be set back."""

    def __init__(self, skew: float) -> None:
        """`skew` is how far the file's clock is ahead of ours."""
        self.passed = self.changed = 0.0
        """What really passed until now, and until the last change."""
        self.now = NOW
        self.skew = skew
        self.mtime = self.ctime = NOW + skew
        self.size = 10
        self.is_open = False
        self._history: History | None = None

    def act(self, act: str, seconds: float) -> None:
        """Do what the producer does."""
        match act:
            case "write":
                self.is_open, self.size = True, self.size + 1
                self._change(self.now + self.skew)
            case "chmod":
                self._change(self.mtime)
            case "set mtime back" | "set mtime ahead":
                self._change(NOW - 1e6 if act.endswith("back") else FAR_FUTURE)
            case "set the clock back":
                self.now -= seconds * 100
            case "open" | "close":
                self.is_open = act == "open"

    def _change(self, mtime: float) -> None:
        self.mtime, self.ctime, self.changed = mtime, self.now + self.skew, self.passed

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.passed, self.now = self.passed + seconds, self.now + seconds

    def look(self, rules: Rules, *, leases: bool) -> Decision:
        """What is decided now."""
        writer = Writer.UNKNOWN if not leases else Writer.OPEN if self.is_open else Writer.NONE
        observation = seen(at=self.now, size=self.size, mtime=self.mtime, ctime=self.ctime, writer=writer)
        self._history = advance(self._history, observation)
        return decide(observation, self._history, rules, self.now)


@given(
    events=EVENTS,
    ready=st.sampled_from([Ready.CLOSED, Ready.STABLE]),
    leases=st.booleans(),
    skew=st.sampled_from([0.0, 0.0, 30.0]),
)
def test_no_file_is_settled_early_and_every_file_is_settled_late(
    events: list[tuple[str, float]], ready: Ready, leases: bool, skew: float
) -> None:
    """With an open writer or a change within `settle` no file is settled; one that is left alone is, in a few looks.

    What counts is the time that really passed. Without leases an open writer cannot be seen, so that there it counts
    only as far as it writes.
    """
    rules = replace(RULES, ready=ready)
    drop = Drop(skew)
    for act, seconds in events:
        drop.act(act, seconds)
        if act == "look" and drop.look(rules, leases=leases) == Settled():
            assert drop.passed - drop.changed >= rules.settle
            assert not (drop.is_open and leases)
        drop.pause(seconds)

    drop.is_open = False
    for _ in range(6):
        decision = drop.look(rules, leases=leases)
        if decision == Settled():
            return
        assert isinstance(decision, Wait)
        assert decision.until is not None
        assert decision.until <= drop.now + rules.settle + 0.001
        drop.pause(max(0.0, decision.until - drop.now) + 0.001)
    pytest.fail(f"still {decision}")


@pytest.mark.parametrize("rules", [RULES, STABLE])
def test_a_clock_that_is_set_ahead_settles_no_half_file(rules: Rules) -> None:
    """A second after it was seen first, an hour has passed by the clock alone: it may be half a file as before."""
    first = seen(ctime=NOW - 0.1, mtime=NOW - 0.1, writer=Writer.UNKNOWN)
    history = advance(None, first)
    set_at = NOW + 3601
    for moment in (set_at, set_at + rules.settle / 2):
        later = replace(first, taken_at=moment, clock_set_at=set_at)
        assert isinstance(decide(later, advance(history, later), rules, moment), Wait)
    later = replace(first, taken_at=set_at + rules.settle + 0.1, clock_set_at=set_at)
    assert isinstance(decide(later, advance(history, later), rules, later.taken_at), Settled)


def test_a_clock_that_is_set_ahead_settles_no_file_of_a_server_whose_clock_is_farther_ahead() -> None:
    """Its times lie in the future and say nothing; what counts is how long it has been watched since the step."""
    first = seen(ctime=NOW + 90_000, mtime=NOW + 90_000, writer=Writer.UNKNOWN)
    set_at = NOW + 3601
    later = replace(first, taken_at=set_at, clock_set_at=set_at)
    history = advance(advance(None, first), later)
    assert isinstance(decide(later, history, RULES, set_at), Wait)
    at_last = set_at + RULES.settle + 0.1
    assert isinstance(decide(replace(later, taken_at=at_last), history, RULES, at_last), Settled)


def test_a_clock_that_is_set_ahead_refuses_no_placeholder() -> None:
    """A day has passed by the clock alone; the export may still fill the file."""
    empty = seen(size=0, ctime=NOW - 10, mtime=NOW - 10)
    later = replace(empty, taken_at=NOW + 90_000, clock_set_at=NOW + 90_000)
    decision = decide(later, advance(advance(None, empty), later), RULES, NOW + 90_000)
    assert isinstance(decision, Wait)


@given(
    size=st.sampled_from([0, 1, 1000, 1001]),
    path=st.sampled_from(["a.csv", "a\udcff.csv", "a.csv.done"]),
    ages=st.tuples(*[st.floats(-100, 2000)] * 3),
    writer=st.sampled_from(Writer),
    readable=st.booleans(),
    regular=st.booleans(),
    marker=st.none() | st.floats(-100, 2000),
    ready=st.sampled_from(Ready),
    empty_after=st.sampled_from([0.0, 600.0]),
)
def test_what_cannot_be_sent_is_never_settled(
    size: int,
    path: str,
    ages: tuple[float, float, float],
    writer: Writer,
    readable: bool,
    regular: bool,
    marker: float | None,
    ready: Ready,
    empty_after: float,
) -> None:
    """Whatever was observed: no placeholder is sent or refused before its time, and nothing that is being written."""
    mtime, ctime, since = (NOW - age for age in ages)
    observation = seen(
        path=path,
        size=size,
        mtime=mtime,
        ctime=ctime,
        writer=writer,
        readable=readable,
        regular=regular,
        marker=None if marker is None else NOW - marker,
    )
    rules = replace(RULES, ready=ready, empty_after=empty_after)
    decision = verdict(observation, rules, since=min(since, NOW))
    if not regular or (ready is Ready.MARKER and path.endswith(".done")):
        assert isinstance(decision, Ignore)
        return
    assert not isinstance(decision, Ignore)
    if writer is Writer.OPEN or (ready is Ready.MARKER and marker is None):
        assert isinstance(decision, Wait)
    if decision == Settled():
        assert 0 < size <= rules.max_size
        assert path.isascii()
        assert readable
        assert ready is Ready.MARKER or not NOW - rules.settle <= max(mtime, ctime) <= NOW
    if isinstance(decision, Refuse) and size == 0:
        assert empty_after
        assert not NOW - empty_after < max((time for time in (mtime, ctime) if time <= NOW), default=since)
