"""What the answers of the API and of object stores mean: one error of ours for each. Pure.

Sources: the S3 API reference "Error responses", RFC 9110 (status codes, `Retry-After`), and what rclone's and Ceph's
gateways were seen to send. ProcessMind publishes no status codes, so none but the common meaning is assumed.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tablefeed.clock import http_date
from tablefeed.errors import (
    BadAnswer,
    Busy,
    DeliveryError,
    FeedBlocked,
    FileRefused,
    GrantExpired,
    KeyRefused,
    SignatureRefused,
    Unreachable,
)
from tablefeed.redact import redact

_LONGEST_MESSAGE = 300
_BUSY_CODES = frozenset(
    {
        *("RequestTimeout", "SlowDown", "ServiceUnavailable", "InternalError", "BadDigest", "ServerBusy"),
        *("Throttling", "ThrottlingException", "RequestThrottled", "TooManyRequests", "BandwidthLimitExceeded"),
        *("OperationAborted", "ConditionalRequestConflict", "OperationTimedOut"),
    }
)
_BUSY_STATUS = frozenset({408, 421, 423, 425, 429})
_EXPIRED_CODES = frozenset({"ExpiredToken", "RequestTimeTooSkewed", "TokenRefreshRequired", "RequestExpired"})
_EXPIRED_TEXT = re.compile(r"request has expired|difference between the request time|signature.*expir|expired", re.I)
_FILE_CODES = frozenset({"EntityTooLarge", "EntityTooSmall", "KeyTooLongError", "MaxMessageLengthExceeded"})
_ELEMENT = re.compile(r"<(Code|Message)>([^<]{0,2000})</\1>")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer other than 2xx, with what its body says."""

    origin: str
    status: int
    code: str = ""
    message: str = ""
    retry_after: float | None = None

    @property
    def summary(self) -> str:
        """The answer in a few words, fit to be shown."""
        return " ".join(filter(None, (str(self.status), self.code, self.message)))


def safe(text: str, *secrets: str) -> str:
    """A server's words, fit to be shown: one line, not too long, without keys and signatures."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return redact(line, secrets)[:_LONGEST_MESSAGE]


def store_answer(
    origin: str, status: int, headers: Mapping[str, str], body: str, now: float, secrets: Collection[str] = ()
) -> Answer:
    """The answer of an object store, whose body is XML with a code and a message, or nothing.

    `secrets` are taken out of its words, whatever stands around them.
    """
    said = dict(_ELEMENT.findall(body))
    code, message = safe(said.get("Code", ""), *secrets), safe(said.get("Message", ""), *secrets)
    return Answer(origin, status, code, message, retry_after(headers, now))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that `Retry-After` asks for, whether it gives seconds or a date.

    A date is measured from the answer's own `Date`, since our clock may be wrong; `now`, in Unix seconds, serves where
    there is none.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    until, told = http_date(text), http_date(headers.get("Date"))
    return None if until is None else max(0.0, until - (now if told is None else told))


def _passes(answer: Answer) -> DeliveryError | None:
    """The error for an answer that waiting heals, whoever gave it; None: it is of another kind."""
    status = answer.status
    if status == 407:
        return Unreachable(answer.origin, "the proxy answered 407; it wants other credentials")
    asked = status >= 400 and status != 401 and answer.retry_after is not None
    if status in _BUSY_STATUS or status >= 500 or asked or answer.code in _BUSY_CODES:
        return Busy(answer.origin, status, answer.code or answer.message, answer.retry_after)
    return None


def api_error(answer: Answer, *, asked_for: str, key_name: str, settings: str) -> DeliveryError:
    """What an answer of the ProcessMind API means for the file that asked.

    `settings` names those that say what was asked for.
    """
    origin, status = answer.origin, answer.status
    if (passing := _passes(answer)) is not None:
        return passing
    if status in (401, 403):
        return KeyRefused(
            f"{origin} refused the API key for {asked_for} ({answer.summary})",
            f"Check the key in {key_name}, and that it belongs to this tenant",
            origin=origin,
        )
    if status == 404:
        return FeedBlocked(
            f"{origin} does not know {asked_for} ({answer.summary})",
            f"Check {settings}",
            origin=origin,
        )
    if status == 413:
        return FileRefused(asked_for, f"{origin} says that the file is too large ({answer.summary})", "Split the file")
    if 400 <= status < 500:
        return FeedBlocked(
            f"{origin} refused to give a presigned URL for {asked_for} ({answer.summary})",
            "Check the feed's settings against what the answer says",
            maybe_file=True,
            origin=origin,
        )
    return BadAnswer(origin, f"status {status} where JSON was expected; is base_url right?")


def store_error(
    answer: Answer, *, path: str, overdue: bool, signed_headers: tuple[str, ...], size: int
) -> DeliveryError:
    """What an answer of the object store means for the file at `path`.

    `overdue`: by our own estimate the grant had expired when the request began. Some gateways refuse without a reason.
    """
    origin, status, code = answer.origin, answer.status, answer.code
    if code in _EXPIRED_CODES or (status in (400, 401, 403) and (overdue or _EXPIRED_TEXT.search(answer.message))):
        return GrantExpired(origin, answer.summary)
    if status != 501 and (passing := _passes(answer)) is not None:
        return passing
    if code == "SignatureDoesNotMatch":
        return SignatureRefused(origin, code, signed_headers)
    if code in _FILE_CODES or status == 413:
        return FileRefused(
            path, f"{origin} does not take it ({answer.summary}; {size} bytes)", "Split or rename the file"
        )
    if code in ("AuthenticationFailed", "AccessDenied") or status in (401, 403):
        return SignatureRefused(origin, code or str(status), signed_headers)
    if 400 <= status < 500 or status == 501:
        return FeedBlocked(
            f"{origin} refused the upload ({answer.summary})",
            "The presigned URL or the store behind it is set up wrongly; ask ProcessMind's support",
            maybe_file=True,
            origin=origin,
        )
    return BadAnswer(origin, f"status {answer.summary}")
