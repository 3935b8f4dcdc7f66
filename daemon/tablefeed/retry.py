"""What follows an error: the policy, as pure functions."""

from collections.abc import Callable
from dataclasses import dataclass

from tablefeed.errors import (
    DeliveryError,
    FeedBlocked,
    FileRefused,
    GrantExpired,
    LeaseLost,
    SignatureRefused,
    SourceChanged,
    Transient,
)

FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0
LONGEST_ASKED = 3_600.0
"""The longest `Retry-After` that is believed."""
MOST_GRANTS = 3
"""Grants tried one after the other before a file waits."""
MOST_REFUSALS = 3
"""How often a file is refused, while others of its feed are delivered, before the blame is the file's."""


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after `delay` seconds. `keep_grant`: to the same object."""

    delay: float
    keep_grant: bool


@dataclass(frozen=True, slots=True)
class Regrant:
    """Fetch another grant and send at once."""


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Back to readiness: the path holds something new, or nothing."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """Move the file to `failed/`."""

    error: FileRefused


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause the feed; this file is tried again after `delay` seconds at the earliest."""

    error: FeedBlocked
    delay: float


@dataclass(frozen=True, slots=True)
class LeaveToOthers:
    """Do no more with it: another node has it."""


Decision = Again | Regrant | LookAgain | SetAside | Pause | LeaveToOthers


def backoff(failures: int, random: Callable[[], float], asked: float | None = None) -> float:
    """Seconds to wait after the nth failure in a row (from 1): what was `asked`, and exponential with full jitter.

    Without the jitter all that were asked to wait for the same time would come back together.
    Source: "Exponential Backoff And Jitter", AWS Architecture Blog.
    """
    ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(max(failures, 1) - 1, 30))
    return min((asked or 0.0) + random() * ceiling, LONGEST_ASKED)


def decide(
    error: DeliveryError,
    *,
    path: str,
    attempts: int,
    grants: int,
    feed_works: bool,
    random: Callable[[], float],
    refusals: int = 0,
    untouched: bool = False,
) -> Decision:
    """What to do with the file at `path` after `error`.

    `attempts`: failures of this file before this one, `refusals`: those of them that may be its own fault; `grants`:
    grants used in this try; `feed_works`: another file of the feed has been delivered since this one failed last;
    `untouched`: no earlier request with its grant can have reached the store, so that no object would be made twice by
    another grant.
    """
    match error:
        case SignatureRefused() if grants >= 2:
            return _blamed(_disagreement(error), path, attempts, refusals, random, feed_works=feed_works)
        case GrantExpired() if grants < MOST_GRANTS:
            return Regrant()
        case GrantExpired():
            return Again(backoff(attempts + 1, random), keep_grant=False)
        case SourceChanged():
            return LookAgain()
        case LeaseLost():
            return LeaveToOthers()
        case FileRefused():
            return SetAside(error)
        case FeedBlocked():
            return _blamed(error, path, attempts, refusals, random, feed_works=feed_works)
        case Transient():
            # What never reached its store made no object there, and the API may name another store by now.
            keep = error.ambiguous or not untouched
            return Again(backoff(attempts + 1, random, error.retry_after), keep_grant=keep)
        case _:
            raise AssertionError(f"no policy for {type(error).__name__}")


def _disagreement(error: SignatureRefused) -> FeedBlocked:
    return FeedBlocked(
        f"{error}, and a new URL was refused as well",
        "The signer and the store disagree; ask ProcessMind's support, and name these headers",
        maybe_file=True,
    )


def _blamed(
    error: FeedBlocked, path: str, attempts: int, refusals: int, random: Callable[[], float], *, feed_works: bool
) -> Decision:
    if error.maybe_file and feed_works and refusals + 1 >= MOST_REFUSALS:
        reason = f"{error.reason}, while other files of the feed are delivered"
        return SetAside(FileRefused(path, reason, error.remedy))
    return Pause(error, backoff(attempts + 1, random))
