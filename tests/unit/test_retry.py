import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablefeed import errors
from tablefeed.errors import (
    BadAnswer,
    Busy,
    Conflict,
    Damaged,
    DeliveryError,
    DiskTrouble,
    FeedBlocked,
    FileRefused,
    GrantExpired,
    KeyRefused,
    LeaseLost,
    SignatureRefused,
    SourceChanged,
    Stalled,
    Unreachable,
)
from tablefeed.retry import (
    LONGEST_ASKED,
    LONGEST_DELAY,
    Again,
    Decision,
    LeaveToOthers,
    LookAgain,
    Pause,
    Regrant,
    SetAside,
    backoff,
    decide,
)

O = "https://s.example"  # noqa: E741 - an origin, many times over
SAMPLES: dict[type[DeliveryError], DeliveryError] = {
    Unreachable: Unreachable(O, "refused"),
    Stalled: Stalled(O, 60, 1, 2),
    Busy: Busy(O, 503),
    BadAnswer: BadAnswer(O, "HTML"),
    Damaged: Damaged(O, "MD5", "a", "b"),
    DiskTrouble: DiskTrouble("/d", "full"),
    Conflict: Conflict("postgresql://db/x", "deadlock"),
    GrantExpired: GrantExpired(O, "AccessDenied"),
    SignatureRefused: SignatureRefused(O, "SignatureDoesNotMatch", ("host",)),
    SourceChanged: SourceChanged("/d/a.csv", "changed"),
    FileRefused: FileRefused("/d/a.csv", "too large", "Split it"),
    FeedBlocked: FeedBlocked("no table", "Set it"),
    KeyRefused: KeyRefused("no key", "Set it"),
    LeaseLost: LeaseLost("/d/a.csv"),
}


def decision(
    error: DeliveryError, *, attempts: int = 0, refusals: int = 0, grants: int = 1, feed_works: bool = False
) -> Decision:
    return decide(
        error,
        path="a.csv",
        attempts=attempts,
        refusals=refusals,
        grants=grants,
        feed_works=feed_works,
        random=lambda: 0.5,
    )


def test_every_error_has_a_policy() -> None:
    """Each concrete DeliveryError is in the table below."""
    concrete = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, DeliveryError) and kind not in (DeliveryError, errors.Transient)
    }
    assert set(SAMPLES) == concrete


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Unreachable, Again(0.5, keep_grant=True)),
        (Stalled, Again(0.5, keep_grant=True)),
        (Busy, Again(0.5, keep_grant=True)),
        (BadAnswer, Again(0.5, keep_grant=True)),
        (Damaged, Again(0.5, keep_grant=True)),
        (DiskTrouble, Again(0.5, keep_grant=True)),
        (Conflict, Again(0.5, keep_grant=True)),
        (GrantExpired, Regrant()),
        (SignatureRefused, Regrant()),
        (SourceChanged, LookAgain()),
        (LeaseLost, LeaveToOthers()),
        (FileRefused, SetAside(SAMPLES[FileRefused])),  # type: ignore[arg-type]
        (FeedBlocked, Pause(SAMPLES[FeedBlocked], 0.5)),  # type: ignore[arg-type]
        (KeyRefused, Pause(SAMPLES[KeyRefused], 0.5)),  # type: ignore[arg-type]
    ],
)
def test_the_policy_for_a_first_failure(kind: type[DeliveryError], expected: Decision) -> None:
    """What waits keeps its grant, an old grant is replaced at once, the rest stops itself only."""
    assert decision(SAMPLES[kind]) == expected


@given(st.sampled_from([Unreachable, Stalled, Busy, BadAnswer, Damaged, DiskTrouble]), st.integers(0, 10**6))
def test_an_outage_fails_no_file(kind: type[DeliveryError], attempts: int) -> None:
    """What passes is retried without limit, at least every five minutes, to the same object."""
    outcome = decision(SAMPLES[kind], attempts=attempts, feed_works=True)
    assert isinstance(outcome, Again)
    assert outcome.delay <= LONGEST_DELAY
    assert outcome.keep_grant


def test_new_grants_are_bounded() -> None:
    """A store that calls every grant expired makes the file wait instead of asking for ever."""
    outcome = decision(SAMPLES[GrantExpired], grants=3)
    assert outcome == Again(0.5, keep_grant=False)


def test_a_second_signature_refusal_pauses_the_feed_and_names_the_headers() -> None:
    """One refusal may be chance; two say that signer and store disagree."""
    outcome = decision(SAMPLES[SignatureRefused], grants=2)
    assert isinstance(outcome, Pause)
    assert "host" in str(outcome.error)


def test_a_file_is_blamed_only_when_its_feed_works_and_it_was_refused_thrice() -> None:
    """What may be one file's fault pauses the feed until the others prove that it is the file."""
    doubtful = FeedBlocked("400", "Check", maybe_file=True)
    assert isinstance(decision(doubtful, refusals=2, feed_works=False), Pause)
    assert isinstance(decision(doubtful, refusals=1, feed_works=True), Pause)
    assert isinstance(decision(doubtful, refusals=2, feed_works=True), SetAside)
    assert isinstance(decision(SAMPLES[FeedBlocked], refusals=99, feed_works=True), Pause)


def test_an_outage_is_no_refusal() -> None:
    """However often a file failed for other reasons, its first refusal does not set it aside."""
    doubtful = FeedBlocked("400", "Check", maybe_file=True)
    assert isinstance(decision(doubtful, attempts=99, refusals=0, feed_works=True), Pause)


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 10**9))
def test_backoff_is_jittered_bounded_and_never_under_what_was_asked(n: int, jitter: float, asked: float | None) -> None:
    """Full jitter under an exponential ceiling, on top of Retry-After, and never more than an hour."""
    delay = backoff(n, lambda: jitter, asked)
    assert delay >= min(asked or 0.0, LONGEST_ASKED)
    assert delay <= min((asked or 0.0) + LONGEST_DELAY, LONGEST_ASKED)


def test_those_who_were_asked_to_wait_for_the_same_time_come_back_one_by_one() -> None:
    """The jitter comes on top of Retry-After instead of being swallowed by it."""
    assert len({backoff(1, lambda n=n: n / 100, 30.0) for n in range(100)}) == 100  # type: ignore[misc]


def test_backoff_grows() -> None:
    """The ceiling doubles with each failure in a row."""
    assert [backoff(n, lambda: 0.999999) for n in (1, 2, 3, 20)] == pytest.approx([1, 2, 4, 300], rel=1e-3)
