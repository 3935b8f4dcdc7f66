from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablefeed.answers import Answer, api_error, retry_after, safe, store_answer, store_error
from tablefeed.errors import (
    BadAnswer,
    Busy,
    DeliveryError,
    FeedBlocked,
    FileRefused,
    GrantExpired,
    KeyRefused,
    SignatureRefused,
)

ORIGIN = "https://store.example"


def store(status: int, code: str = "", message: str = "", *, overdue: bool = False) -> DeliveryError:
    answer = Answer(ORIGIN, status, code, message)
    return store_error(answer, path="/d/a.csv", overdue=overdue, signed_headers=("host",), size=7)


def api(status: int, message: str = "") -> DeliveryError:
    answer = Answer("https://api.example", status, message=message)
    return api_error(answer, asked_for="datatable t-1", key_name="file /k", settings="datatable_id")


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (429, "", "", Busy),
        (500, "InternalError", "", Busy),
        (502, "", "", Busy),
        (503, "SlowDown", "", Busy),
        (504, "", "", Busy),
        (509, "", "", Busy),
        (408, "", "", Busy),
        (400, "RequestTimeout", "", Busy),
        (400, "BadDigest", "", Busy),
        (403, "AccessDenied", "Request has expired", GrantExpired),
        (403, "ExpiredToken", "", GrantExpired),
        (400, "ExpiredToken", "", GrantExpired),
        (403, "RequestTimeTooSkewed", "", GrantExpired),
        (400, "AccessDenied", "The difference between the request time and the server's time", GrantExpired),
        (403, "SignatureDoesNotMatch", "", SignatureRefused),
        (403, "AccessDenied", "", SignatureRefused),
        (401, "", "", SignatureRefused),
        (403, "AuthenticationFailed", "", SignatureRefused),
        (400, "EntityTooLarge", "", FileRefused),
        (413, "", "", FileRefused),
        (400, "KeyTooLongError", "", FileRefused),
        (411, "MissingContentLength", "", FeedBlocked),
        (501, "NotImplemented", "", FeedBlocked),
        (404, "NoSuchBucket", "", FeedBlocked),
        (400, "HeadersNotSigned", "", FeedBlocked),
        (418, "", "", FeedBlocked),
        (302, "", "", BadAnswer),
    ],
)
def test_each_answer_of_a_store_has_its_meaning(status: int, code: str, message: str, kind: type) -> None:
    """The table of known S3 answers, code by code."""
    assert type(store(status, code, message)) is kind


def test_a_refusal_without_words_is_an_expiry_when_the_grant_was_overdue() -> None:
    """Ceph's gateway says 403 AccessDenied with no text for an expired URL, so our own estimate decides."""
    assert type(store(403, "AccessDenied", overdue=True)) is GrantExpired


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, KeyRefused),
        (403, KeyRefused),
        (404, FeedBlocked),
        (400, FeedBlocked),
        (409, FeedBlocked),
        (413, FileRefused),
        (408, Busy),
        (429, Busy),
        (500, Busy),
        (503, Busy),
        (301, BadAnswer),
    ],
)
def test_each_answer_of_the_api_has_its_meaning(status: int, kind: type) -> None:
    """A key, tenant or datatable that is wrong blocks the feed; an overload passes."""
    assert type(api(status)) is kind


@given(st.integers(300, 599), st.sampled_from(["", "Weird", "AccessDenied"]), st.booleans())
def test_every_status_has_a_meaning(status: int, code: str, overdue: bool) -> None:
    """No status and no code falls through, and only what is known never to succeed is refused for the file's sake."""
    assert isinstance(store(status, code, overdue=overdue), DeliveryError)
    assert isinstance(api(status), DeliveryError)
    if status not in (413,):
        assert not isinstance(store(status, code), FileRefused)


def test_a_refused_key_names_its_source_and_not_its_content() -> None:
    """The message leads to the key's file."""
    assert "file /k" in str(api(401, "Unauthorized"))


def test_the_xml_of_a_store_is_read() -> None:
    """Code, message and Retry-After come out of the answer."""
    body = "<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce</Message></Error>"
    answer = store_answer(ORIGIN, 503, {"Retry-After": "7"}, body, 0.0)
    assert (answer.code, answer.message, answer.retry_after) == ("SlowDown", "Please reduce", 7.0)


def test_a_page_of_a_proxy_is_not_taken_for_xml() -> None:
    """HTML has no code, and is not echoed."""
    answer = store_answer(ORIGIN, 502, {}, "<html>Bad gateway</html>", 0.0)
    assert (answer.code, answer.message) == ("", "")


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    """Both forms of RFC 9110 count, and nonsense counts as nothing."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    date = format_datetime(datetime(2030, 1, 1, 0, 2, tzinfo=UTC), usegmt=True)
    assert retry_after({"Retry-After": "12"}, now.timestamp()) == 12.0
    assert retry_after({"Retry-After": date}, now.timestamp()) == 120.0
    assert retry_after({"Retry-After": "soon"}, now.timestamp()) is None
    assert retry_after({}, now.timestamp()) is None


def test_a_servers_words_are_shown_on_one_line_without_secrets() -> None:
    """What a server says is cut, put on one line, and freed of keys and signatures."""
    said = safe("bad key s3cr3t-key\nfor https://s/k?X-Amz-Signature=abc123 " + "x" * 1000, "s3cr3t-key")
    assert "s3cr3t-key" not in said
    assert "abc123" not in said
    assert "\n" not in said
    assert len(said) <= 300
