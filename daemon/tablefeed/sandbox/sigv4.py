"""Presigned URLs of AWS Signature Version 4: made by `presign`, checked by `verify`. Pure functions.

Source: "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)" in Amazon's S3 API
reference. In short, the signature is an HMAC over the method, the path, the query (all but the signature) and
the headers that `X-Amz-SignedHeaders` names, so none of them can change unseen. The body is not signed.

Both sides first *decode* what is in the URL and then encode it again in the one canonical way: `%7E` and `~`,
or `%2f` and `%2F`, are the same to S3. It encodes a path once and does not tidy it: `//` and `..` stay.
"""

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes, urlsplit

from tablefeed.sandbox.s3error import S3Error, access_denied, bad_query

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "s3"
MAX_LIFETIME = 604_800
"""Seconds: one week, the most that `X-Amz-Expires` may say."""
MAX_SKEW = 900
"""Seconds that the signer's clock may be ahead of the store's."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_REQUIRED = tuple(
    f"X-Amz-{name}" for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
)

Parameters = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who signs, and for which region."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str

    def scope(self, date: str) -> str:
        """What a signature of the day `date` (YYYYMMDD) is good for."""
        return f"{date}/{self.region}/{SERVICE}/aws4_request"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came over the wire; nothing decoded."""

    method: str
    target: str = field(repr=False)
    """Path and query of the request line."""
    headers: Sequence[tuple[str, str]] = field(repr=False)


def presign(
    credentials: Credentials,
    origin: str,
    path: str,
    *,
    now: float,
    lifetime: int,
    method: str = "PUT",
    headers: Mapping[str, str] | None = None,
) -> str:
    """Return the URL that allows one `method` on `path`, from `now` (Unix seconds) on for `lifetime` seconds.

    `origin` is scheme, host and port; `path` is not encoded yet. The caller must send `headers` exactly.
    """
    raw_path = path.encode("utf-8", "surrogateescape")
    signed = _canonical_headers([("host", _host_of(origin)), *(headers or {}).items()])
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    scope = credentials.scope(stamp[:8])
    parameters = [
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", f"{credentials.access_key}/{scope}"),
        ("X-Amz-Date", stamp),
        ("X-Amz-Expires", str(lifetime)),
        ("X-Amz-SignedHeaders", ";".join(sorted(signed))),
    ]
    canonical = _canonical_request(
        method, raw_path, [(name.encode(), value.encode()) for name, value in parameters], signed
    )
    signature = _signature(credentials, stamp, _string_to_sign(stamp, scope, canonical))
    query = "&".join(f"{name}={quote(value, safe='~')}" for name, value in parameters)
    return f"{origin}{quote_from_bytes(raw_path, safe='/~')}?{query}&X-Amz-Signature={signature}"


def verify(credentials: Credentials, request: Received, now: float) -> str:
    """Return the decoded path of a request whose presigned URL is good at `now`, else raise S3Error.

    `now` is when the request began, in Unix seconds: S3 lets a transfer outlast the expiry.
    """
    raw_path, _, query = request.target.partition("?")
    path = unquote_to_bytes(raw_path)
    parameters = _parameters(query)
    claim = _claim(credentials, parameters)
    _check_time(claim, now)
    sent = _canonical_headers(request.headers)
    _check_unsigned(claim, sent)
    signed = {name: sent[name] for name in claim.signed_headers if name in sent}
    canonical = _canonical_request(request.method, path, parameters, signed)
    text = _string_to_sign(claim.stamp, credentials.scope(claim.stamp[:8]), canonical)
    expected = _signature(credentials, claim.stamp, text)
    if not hmac.compare_digest(expected.encode(), claim.signature.encode()):
        raise _mismatch(credentials, claim, text, canonical)
    try:
        return path.decode()
    except UnicodeDecodeError as error:
        raise S3Error(
            HTTPStatus.BAD_REQUEST, "InvalidURI", "Couldn't parse the specified URI: it is not UTF-8."
        ) from error


@dataclass(frozen=True, slots=True)
class _Claim:
    """What the query says about itself, believed once the signature is found to match."""

    stamp: str
    signed_at: int
    lifetime: int
    signed_headers: tuple[str, ...]
    signature: str = field(repr=False)


def _claim(credentials: Credentials, parameters: Parameters) -> _Claim:
    values = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in parameters}
    missing = [name for name in _REQUIRED if name not in values]
    if missing == list(_REQUIRED):
        raise access_denied("Access Denied")
    if missing:
        raise bad_query(
            "Query-string authentication version 4 requires the parameters "
            f"{', '.join(_REQUIRED)}; missing: {', '.join(missing)}."
        )
    if values["X-Amz-Algorithm"] != ALGORITHM:
        raise bad_query(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    stamp = values["X-Amz-Date"]
    _check_credential(credentials, values["X-Amz-Credential"], stamp)
    return _Claim(
        stamp=stamp,
        signed_at=_seconds(stamp),
        lifetime=_lifetime(values["X-Amz-Expires"]),
        signed_headers=tuple(values["X-Amz-SignedHeaders"].split(";")),
        signature=values["X-Amz-Signature"],
    )


def _check_credential(credentials: Credentials, credential: str, stamp: str) -> None:
    access_key, _, scope = credential.partition("/")
    if access_key != credentials.access_key:
        raise S3Error(
            HTTPStatus.FORBIDDEN,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        )
    expected = credentials.scope(stamp[:8])
    if scope != expected:
        raise bad_query(f'Error parsing the X-Amz-Credential parameter; its scope must be "{expected}"')


def _seconds(stamp: str) -> int:
    message = "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""
    if not re.fullmatch(r"[0-9]{8}T[0-9]{6}Z", stamp):
        raise bad_query(message)
    try:
        return calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    except ValueError as error:
        raise bad_query(message) from error


def _lifetime(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise bad_query("X-Amz-Expires should be a number")
    lifetime = int(text)
    if lifetime < 1:
        raise bad_query("X-Amz-Expires must be positive")
    if lifetime > MAX_LIFETIME:
        raise bad_query(
            f"X-Amz-Expires must be less than a week (in seconds); that is, it must be at most {MAX_LIFETIME}"
        )
    return lifetime


def _check_time(claim: _Claim, now: float) -> None:
    server_time = _iso(now)
    if claim.signed_at - now > MAX_SKEW:
        raise S3Error(
            HTTPStatus.FORBIDDEN,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            {
                "RequestTime": claim.stamp,
                "ServerTime": server_time,
                "MaxAllowedSkewMilliseconds": str(MAX_SKEW * 1000),
            },
        )
    expires_at = claim.signed_at + claim.lifetime
    if now > expires_at:
        raise access_denied(
            "Request has expired",
            {
                "X-Amz-Expires": str(claim.lifetime),
                "Expires": _iso(expires_at),
                "ServerTime": server_time,
            },
        )


def _check_unsigned(claim: _Claim, sent: Mapping[str, str]) -> None:
    """`Host` and every `x-amz-*` header must be signed: they decide what the request does."""
    unsigned = [
        name
        for name in sorted(sent)
        if (name == "host" or name.startswith("x-amz-")) and name not in claim.signed_headers
    ]
    if unsigned:
        raise access_denied(
            "There were headers present in the request which were not signed",
            {"HeadersNotSigned": ", ".join(unsigned)},
        )


def _mismatch(credentials: Credentials, claim: _Claim, text: str, canonical: str) -> S3Error:
    """S3 tells what it computed, so that the signer can compare. Such a body is not fit for a log."""
    return S3Error(
        HTTPStatus.FORBIDDEN,
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method.",
        {
            "AWSAccessKeyId": credentials.access_key,
            "StringToSign": text,
            "SignatureProvided": claim.signature,
            "CanonicalRequest": canonical,
        },
    )


def _parameters(query: str) -> Parameters:
    """The decoded pairs of a query. A plus sign is a plus sign here, not a blank."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def _canonical_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in lower case; runs of blanks become one; values of a repeated name are joined in their order."""
    merged: dict[str, list[str]] = {}
    for name, value in headers:
        merged.setdefault(name.strip().lower(), []).append(" ".join(value.split()))
    return {name: ",".join(values) for name, values in merged.items()}


def _canonical_request(method: str, path: bytes, parameters: Parameters, signed: Mapping[str, str]) -> str:
    query = sorted(
        (quote_from_bytes(name, safe="~"), quote_from_bytes(value, safe="~"))
        for name, value in parameters
        if name != b"X-Amz-Signature"
    )
    names = sorted(signed)
    return "\n".join(
        [
            method,
            quote_from_bytes(path, safe="/~"),
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{signed[name]}" for name in names),
            "",
            ";".join(names),
            "UNSIGNED-PAYLOAD",
        ]
    )


def _string_to_sign(stamp: str, scope: str, canonical: str) -> str:
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}"


def _signature(credentials: Credentials, stamp: str, text: str) -> str:
    key = b"AWS4" + credentials.secret_key.encode()
    for part in credentials.scope(stamp[:8]).split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _host_of(origin: str) -> str:
    """The `Host` header that a client sends to `origin`: without the scheme's default port."""
    parts = urlsplit(origin)
    host = parts.netloc.lower()
    return host.removesuffix(f":{_DEFAULT_PORTS[parts.scheme]}")


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
