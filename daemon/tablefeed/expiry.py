"""What a presigned URL says of itself: until when it is valid, and which headers its signature covers. Pure.

Four schemes are told apart by their query parameters, whose names are compared without case:

| scheme | expiry |
| --- | --- |
| AWS SigV4 | `X-Amz-Date` + `X-Amz-Expires` seconds |
| GCS V4 | `X-Goog-Date` + `X-Goog-Expires` seconds |
| Azure SAS | `se`, ISO 8601 UTC in any of its precisions |
| AWS SigV2, GCS V2 | `Expires`, Unix seconds |

Sources: AWS "Authenticating Requests: Using Query Parameters", Google "Signed URLs", Microsoft "Service SAS".
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

_BASIC = "%Y%m%dT%H%M%SZ"
_ISO = re.compile(r"(\d{4}-\d{2}-\d{2})(?:T(\d{2}:\d{2})(?::(\d{2})(?:\.\d+)?)?Z?)?")
_LATEST_MS = 253_402_300_799_000  # the end of the year 9999


def parameters(url: str) -> dict[str, str]:
    """The query's parameters with names in lower case."""
    return {name.lower(): value for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True)}


def validity(url: str, now: int, asked: float) -> tuple[int, float]:
    """(expiry in Unix milliseconds on the server's clock, seconds from issue to expiry) of a URL just received.

    `now` is the server's time in milliseconds, `asked` the lifetime that was asked for in seconds: they serve where the
    URL tells nothing or nonsense.
    """
    query = parameters(url)
    for vendor in ("x-amz-", "x-goog-"):
        if (issued := _basic(query.get(vendor + "date"))) is not None:
            seconds = _whole(query.get(vendor + "expires"))
            if seconds is not None:
                return min(issued + seconds * 1000, _LATEST_MS), float(seconds)
    expiry = _iso(query["se"]) if "sig" in query and "se" in query else _whole(query.get("expires"), 1000)
    if expiry is None:
        return now + round(asked * 1000), asked
    return expiry, max(0.0, (expiry - now) / 1000)


def signed_headers(url: str) -> tuple[str, ...]:
    """The lower-case names of the headers that the signature covers, `host` included where the scheme says so."""
    query = parameters(url)
    names = query.get("x-amz-signedheaders") or query.get("x-goog-signedheaders") or ""
    return tuple(name.strip().lower() for name in names.split(";") if name.strip())


def demanded_headers(url: str, content_type: str) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """(headers to send, names of those that cannot be known) for a PUT to this URL.

    `Host` and `Content-Length` go out by themselves. A signed `Content-Type` has a value that the signer chose and did
    not tell; `content_type` is the likeliest. Azure's block blobs need a header that no signature names.
    """
    headers: dict[str, str] = {}
    unknown: list[str] = []
    for name in signed_headers(url):
        if name in ("host", "content-length"):
            continue
        if name == "content-type":
            headers["Content-Type"] = content_type
        elif name == "x-amz-content-sha256":
            headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
        else:
            unknown.append(name)
    query = parameters(url)
    if "sig" in query and "sv" in query:
        headers["x-ms-blob-type"] = "BlockBlob"
    return headers, tuple(unknown)


def _basic(text: str | None) -> int | None:
    try:
        return round(datetime.strptime(text or "", _BASIC).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        return None


def _whole(text: str | None, factor: int = 1) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 15:
        return None
    return min(int(text) * factor, _LATEST_MS)


def _iso(text: str) -> int | None:
    if not (match := _ISO.fullmatch(text)):
        return None
    day, minute, second = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}+00:00")
    except ValueError:
        return None
    return round(moment.timestamp() * 1000)
