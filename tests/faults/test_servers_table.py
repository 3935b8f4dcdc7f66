"""The table of what answers mean and what follows from them is complete: every status, every code, every error."""

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablefeed.answers import Answer, api_error, retry_after, store_error
from tablefeed.clock import http_date
from tablefeed.errors import (
    BadAnswer,
    Busy,
    Damaged,
    DeliveryError,
    DiskTrouble,
    FeedBlocked,
    FileRefused,
    GrantExpired,
    SignatureRefused,
    SourceChanged,
    Stalled,
    Transient,
    Unreachable,
)
from tablefeed.retry import (
    LONGEST_ASKED,
    MOST_GRANTS,
    Again,
    LookAgain,
    Pause,
    Regrant,
    SetAside,
    decide,
)

STATUSES = range(100, 600)
PASSING_CODES = [
    *("SlowDown", "RequestTimeout", "BadDigest", "ServiceUnavailable", "InternalError", "ServerBusy", "Throttling"),
    *("RequestThrottled", "TooManyRequests", "OperationAborted", "OperationTimedOut"),
]
EXPIRY_CODES = ["ExpiredToken", "RequestTimeTooSkewed", "TokenRefreshRequired"]
LASTING_CODES = [
    *(
        "EntityTooLarge",
        "EntityTooSmall",
        "KeyTooLongError",
        "HeadersNotSigned",
        "NoSuchBucket",
        "MissingContentLength",
    ),
    *(
        "NotImplemented",
        "SignatureDoesNotMatch",
        "AccessDenied",
        "AuthenticationFailed",
        "InvalidArgument",
        "Weird",
        "",
    ),
]
PASSING_STATUSES = {407, 408, 421, 423, 425, 429, *(status for status in range(500, 600) if status != 501)}
ORIGIN = "https://s.example"


def of_store(status: int, code: str, *, overdue: bool = False, asked: float | None = None) -> DeliveryError:
    answer = Answer(ORIGIN, status, code, "", asked)
    return store_error(answer, path="a.csv", overdue=overdue, signed_headers=("host",), size=7)


def of_api(status: int, *, asked: float | None = None) -> DeliveryError:
    answer = Answer(ORIGIN, status, retry_after=asked)
    return api_error(answer, asked_for="datatable t", key_name="file /k", settings="datatable_id")


def all_decisions(error: DeliveryError) -> Iterator[object]:
    """Whatever may have been before."""
    truths = (False, True)
    for attempts, refusals, grants, works, untouched in product((0, 3, 99), (0, 2, 99), (0, 1, 2, 3), truths, truths):
        yield decide(
            error,
            path="a.csv",
            attempts=attempts,
            refusals=refusals,
            grants=grants,
            feed_works=works,
            random=lambda: 0.5,
            untouched=untouched,
        )


@pytest.mark.parametrize("code", PASSING_CODES + EXPIRY_CODES + LASTING_CODES)
def test_every_status_with_every_code_has_a_class_and_a_decision(code: str) -> None:
    """No combination raises anything, and the class is one that the policy knows."""
    for status in STATUSES:
        for overdue in (False, True):
            error = of_store(status, code, overdue=overdue)
            assert isinstance(error, Busy | BadAnswer | Unreachable | GrantExpired | FileRefused | FeedBlocked)
            decision = decide(error, path="a.csv", attempts=0, grants=1, feed_works=False, random=lambda: 0.5)
            assert isinstance(decision, Again | Regrant | SetAside | Pause)


def test_every_status_of_the_api_has_a_class_and_a_decision() -> None:
    """The same for the API, which sends no codes."""
    for status in STATUSES:
        for decision in all_decisions(of_api(status)):
            assert isinstance(decision, Again | SetAside | Pause)


@pytest.mark.parametrize("code", [*PASSING_CODES, ""])
def test_what_waiting_heals_is_never_the_files_fault(code: str) -> None:
    """An overload, a lock, a proxy that wants other credentials: however often, and whatever else was delivered."""
    for status in STATUSES if code else PASSING_STATUSES:
        if status == 501:
            continue
        error = of_store(status, code)
        assert isinstance(error, Transient), (status, code)
        for decision in all_decisions(error):
            assert isinstance(decision, Again)
            assert 0 <= decision.delay <= LONGEST_ASKED


@pytest.mark.parametrize("status", sorted(PASSING_STATUSES | {501}))
def test_an_api_that_cannot_now_sets_no_file_aside(status: int) -> None:
    """Every 5xx of the API passes, 501 too: what it does not do today it may do tomorrow."""
    assert all(isinstance(decision, Again) for decision in all_decisions(of_api(status)))


def test_a_wrong_key_or_datatable_is_no_files_fault() -> None:
    """Whatever was delivered before: the feed is paused, and its files stay."""
    for status in (401, 403, 404):
        assert all(isinstance(decision, Pause) for decision in all_decisions(of_api(status)))


def test_a_server_that_says_when_to_come_again_is_believed() -> None:
    """`Retry-After` means that it will pass, also with a status that elsewhere is final (RFC 9110 on 413)."""
    for status in set(range(400, 600)) - {401, 501}:
        for error in (of_store(status, "", asked=5.0), of_api(status, asked=5.0)):
            assert isinstance(error, Transient)
            assert all(isinstance(decision, Again) for decision in all_decisions(error))


@pytest.mark.parametrize("code", EXPIRY_CODES)
def test_an_expired_grant_costs_no_file(code: str) -> None:
    """Another grant at once, a bounded number of times, then a wait."""
    for status in (400, 401, 403):
        for decision in all_decisions(of_store(status, code)):
            assert isinstance(decision, Regrant | Again)
    for grants in range(MOST_GRANTS, 9):
        decision = decide(of_store(403, code), path="a", attempts=0, grants=grants, feed_works=True, random=lambda: 0.5)
        assert isinstance(decision, Again)


SAMPLES: list[DeliveryError] = [
    Unreachable(ORIGIN, "refused"),
    Stalled(ORIGIN, 60, 1, 2),
    Busy(ORIGIN, 503),
    BadAnswer(ORIGIN, "HTML"),
    Damaged(ORIGIN, "MD5", "a", "b"),
    DiskTrouble("/d", "full"),
    GrantExpired(ORIGIN, "AccessDenied"),
    SourceChanged("a.csv", "changed"),
    FeedBlocked("key refused", "Check it"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_only_what_blames_a_file_sets_it_aside(error: DeliveryError) -> None:
    """Nothing else does, whatever has happened before."""
    for decision in all_decisions(error):
        assert isinstance(decision, Again | Regrant | LookAgain | Pause)


def keeps(error: Transient, attempts: int, *, untouched: bool) -> bool:
    decision = decide(
        error,
        path="a",
        attempts=attempts,
        grants=1,
        feed_works=False,
        random=lambda: 0.5,
        untouched=untouched,
    )
    assert isinstance(decision, Again)
    return decision.keep_grant


@given(st.sampled_from([s for s in SAMPLES if isinstance(s, Transient)]), st.integers(0, 10**6), st.booleans())
def test_a_grant_that_may_have_made_an_object_is_kept(error: Transient, attempts: int, untouched: bool) -> None:
    """After a reply that may have been lost the same object is written again, however often the store then refuses."""
    assert error.ambiguous
    assert keeps(error, attempts, untouched=untouched)
    silent = Unreachable(ORIGIN, "refused")
    silent.ambiguous = False
    assert keeps(silent, attempts, untouched=False)


@given(st.integers(0, 10**6))
def test_a_grant_that_reached_nobody_is_given_up(attempts: int) -> None:
    """So a URL for a host that does not exist is replaced by what the API gives next."""
    silent = Unreachable(ORIGIN, "its name is not known (DNS)")
    silent.ambiguous = False
    assert not keeps(silent, attempts, untouched=True)


@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d+:\d+:\d+ \S*"))
def test_no_date_and_no_retry_after_breaks_anything(text: str) -> None:
    """Servers send what they like: it is seconds from now, or nothing."""
    moment = http_date(text)
    assert moment is None or isinstance(moment, float)
    asked = retry_after({"Retry-After": text, "Date": text[::-1]}, 1_700_000_000.0)
    assert asked is None or asked >= 0


def test_a_signature_that_is_refused_twice_is_no_endless_loop() -> None:
    """One refusal fetches another grant; the next one pauses or blames."""
    refused = SignatureRefused(ORIGIN, "SignatureDoesNotMatch", ("host",))
    for grants in range(2, 9):
        decision = decide(refused, path="a", attempts=0, grants=grants, feed_works=False, random=lambda: 0.5)
        assert isinstance(decision, Pause)
