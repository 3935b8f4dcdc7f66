"""When is a file whole? A pure decision over what was observed, now and before.

A file is settled when it has been quiet for the feed's `settle` time and no process has it open for writing. Where the
kernel cannot tell about writers, or a timestamp cannot be believed, the file must look the same for `settle` by our own
clock. Times are Unix seconds on the wall clock, durations are seconds.
"""

from dataclasses import dataclass, replace
from typing import assert_never

from tablefeed.lease import Writer
from tablefeed.model import LARGEST_PUT, Feed, FileVersion, Ready

RECHECK = 0.5
"""The least pause before a file that somebody has open is looked at again: a close gives no event."""


@dataclass(frozen=True, slots=True)
class Marker:
    """The marker file that lies beside a file."""

    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Observation:
    """How a file looked at one moment. Until it is opened its `writer` is UNKNOWN and it counts as readable."""

    version: FileVersion
    ctime_ns: int
    regular: bool
    taken_at: float
    writer: Writer = Writer.UNKNOWN
    readable: bool = True
    marker: Marker | None = None
    clock_set_at: float = 0.0
    """When the clock was set ahead last; what was before seems to be longer ago than it is."""


@dataclass(frozen=True, slots=True)
class History:
    """Since when a file has looked as it does."""

    version: FileVersion
    ctime_ns: int
    since: float


@dataclass(frozen=True, slots=True)
class Rules:
    """What a feed demands of a file."""

    ready: Ready
    settle: float
    marker_suffix: str
    empty_after: float
    """0: an empty file waits for ever."""
    max_size: int
    unreadable_after: float = 60.0

    @classmethod
    def of(cls, feed: Feed) -> "Rules":
        """The rules of a feed."""
        return cls(feed.ready, feed.settle, feed.marker_suffix, feed.empty_after, feed.max_size)

    def marks(self, path: str) -> bool:
        """Whether a path is that of a marker file."""
        return self.ready is Ready.MARKER and path.endswith(self.marker_suffix)


@dataclass(frozen=True, slots=True)
class Settled:
    """The file is whole."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The file is to be looked at again, at `until`, or when an event or a scan leads to it (None)."""

    until: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Ignore:
    """This is nothing to deliver."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The file can never be delivered as it is."""

    reason: str
    remedy: str


Decision = Settled | Wait | Ignore | Refuse


def advance(history: History | None, observation: Observation) -> History:
    """The history with this observation added; it starts anew when the file looks different or the clock went back."""
    if (
        history is not None
        and (history.version, history.ctime_ns) == (observation.version, observation.ctime_ns)
        and history.since <= observation.taken_at
    ):
        return history
    return History(observation.version, observation.ctime_ns, observation.taken_at)


def decide(observation: Observation, history: History, rules: Rules, now: float) -> Decision:
    """What follows from an observation. `history` has it in already (`advance`)."""
    if not observation.regular:
        return Ignore("it is not a regular file")
    if rules.marks(observation.version.path):
        return Ignore("it is a marker file")
    wait = _not_whole(observation, history, rules, now)
    if wait is not None:
        return wait
    return _unfit(observation, history, rules, now) or Settled()


def worth_probing(glance: Observation, history: History, rules: Rules, now: float) -> bool:
    """Whether the verdict on a glance could be final, so that the file must be opened to ask who writes it."""
    hopeful = replace(glance, writer=Writer.NONE)
    return isinstance(decide(hopeful, history, rules, now), Settled | Refuse)


def _not_whole(observation: Observation, history: History, rules: Rules, now: float) -> Wait | None:
    match rules.ready:
        case Ready.MARKER:
            return _unmarked(observation, rules, now) or _open(observation, rules, now)
        case Ready.STABLE:
            return (
                _unquiet(observation, rules, now)
                or _open(observation, rules, now)
                or _unstable(observation, history, rules, now)
            )
        case Ready.CLOSED:
            wait = _unquiet(observation, rules, now) or _open(observation, rules, now)
            if wait is None and (observation.writer is Writer.UNKNOWN or _ahead(observation, now)):
                wait = _unstable(observation, history, rules, now)
            return wait
        case _:
            assert_never(rules.ready)


def _unmarked(observation: Observation, rules: Rules, now: float) -> Wait | None:
    name = f"{observation.version.name}{rules.marker_suffix}"
    if observation.marker is None:
        return Wait(None, f"the marker file {name} is not there yet")
    mtime_ns = observation.version.mtime_ns
    if observation.marker.ctime_ns < mtime_ns <= now * 1e9:
        return Wait(None, f"the marker file {name} is older than the file")
    return None


def _open(observation: Observation, rules: Rules, now: float) -> Wait | None:
    if observation.writer is not Writer.OPEN:
        return None
    return Wait(now + max(rules.settle, RECHECK), "a process has it open for writing")


def _stamps(observation: Observation) -> tuple[float, float]:
    return observation.version.mtime_ns / 1e9, observation.ctime_ns / 1e9


def _ahead(observation: Observation, now: float) -> bool:
    """Whether a timestamp lies in the future: set by a user, or by a file server with another clock."""
    return max(_stamps(observation)) > now


def _changed_at(observation: Observation, now: float) -> float | None:
    """The latest change by those timestamps that can be true; no earlier than the clock was set."""
    stamp = max((stamp for stamp in _stamps(observation) if stamp <= now), default=None)
    return None if stamp is None else max(stamp, observation.clock_set_at)


def _unquiet(observation: Observation, rules: Rules, now: float) -> Wait | None:
    changed_at = _changed_at(observation, now)
    if changed_at is None or now - changed_at > rules.settle:
        return None
    return Wait(changed_at + rules.settle, "it changed a moment ago")


def _unstable(observation: Observation, history: History, rules: Rules, now: float) -> Wait | None:
    since = max(history.since, observation.clock_set_at)
    if now - since >= rules.settle and now > since:
        return None
    return Wait(since + rules.settle, "it has not been seen unchanged for long enough")


def _unfit(observation: Observation, history: History, rules: Rules, now: float) -> Wait | Refuse | None:
    version = observation.version
    changed_at = _changed_at(observation, now)
    still_for = now - (max(history.since, observation.clock_set_at) if changed_at is None else changed_at)
    if version.size == 0:
        if rules.empty_after == 0:
            return Wait(None, "it is empty")
        if still_for < rules.empty_after:
            return Wait(now - still_for + rules.empty_after, "it is empty")
        return Refuse(
            f"it has been empty for longer than `empty_after` ({rules.empty_after:g} s)",
            "See why the export wrote nothing, or set `empty_after` to 0 to let empty files lie",
        )
    if not _is_utf8(version.path):
        return Refuse("its name is not UTF-8", "Let the export write names in UTF-8, or rename it")
    if version.size > rules.max_size:
        return Refuse(
            f"its {version.size} bytes are more than `max_size` ({rules.max_size} bytes)",
            "Let the export write smaller files, or raise upload.max_size"
            if rules.max_size < LARGEST_PUT
            else "Let the export write smaller files: stores take no more in one PUT",
        )
    if not observation.readable:
        if still_for < rules.unreadable_after:
            return Wait(now - still_for + rules.unreadable_after, "it may not be read")
        return Refuse(
            "it may not be read by the user that runs tablefeed",
            "Give that user read permission, for example through a group that the export shares",
        )
    return None


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
