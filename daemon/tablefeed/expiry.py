"""What a presigned URL says of itself: until when it is valid, and which headers its signature covers. Pure.

Four schemes are told apart by their query parameters, whose names are compared without case:

| scheme | expiry |
| --- | --- |
| AWS SigV4 | `X-Amz-Date` + `X-Amz-Expires` seconds |
| GCS V4 | `X-Goog-Date` + `X-Goog-Expires` seconds |
| Azure SAS | `se`, and `ske` of the key that signed, ISO 8601 in any of its precisions |
| AWS SigV2, GCS V2 | `Expires`, Unix seconds |

Where a parameter is repeated, the value that ends first counts. Sources: AWS "Authenticating Requests: Using Query
Parameters", Google "Signed URLs", Microsoft "Service SAS", "User delegation SAS" and "Formatting DateTime values".
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from urllib.parse import parse_qsl

_BASIC = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_ISO = re.compile(
    r"""(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})
    (?:T(?P<minute>[0-9]{2}:[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.[0-9]+)?)?
      (?:Z|(?P<offset>[ +-][0-9]{2}:[0-9]{2}))?)?""",
    re.VERBOSE,
)
_LATEST_MS = 253_402_300_799_000  # the end of the year 9999

Query = Mapping[str, tuple[str, ...]]
"""Each parameter's values, by its name in lower case."""


@lru_cache(maxsize=256)
def parameters(url: str) -> Query:
    """The query's parameters, whatever the rest of the URL is. Remembered, since a URL is asked several times."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(url.partition("#")[0].partition("?")[2], keep_blank_values=True):
        found[name.lower()] = (*found.get(name.lower(), ()), value)
    return found


def validity(url: str, now: int, asked: float) -> tuple[int, float]:
    """(expiry in Unix milliseconds on the server's clock, seconds from issue to expiry) of a URL just received.

    `now` is the server's time in milliseconds, `asked` the lifetime that was asked for in seconds: they serve where the
    URL tells nothing or nonsense.
    """
    query = parameters(url)
    for vendor in ("x-amz-", "x-goog-"):
        issued, seconds = _least(query, vendor + "date", _basic), _least(query, vendor + "expires", _whole)
        if issued is not None and seconds is not None:
            return min(issued + seconds * 1000, _LATEST_MS), float(seconds)
    expiry = _azure(query) if "sig" in query and query.keys() & {"se", "ske"} else _version_2(query)
    if expiry is None:
        return now + round(asked * 1000), asked
    return expiry, max(0.0, (expiry - now) / 1000)


def _least(query: Query, name: str, read: Callable[[str], int | None]) -> int | None:
    """The least of a parameter's values that can be read."""
    return min((value for text in query.get(name, ()) if (value := read(text)) is not None), default=None)


def _azure(query: Query) -> int | None:
    ends = [end for name in ("se", "ske") if (end := _least(query, name, _iso)) is not None]
    return min(ends, default=None)


def _version_2(query: Query) -> int | None:
    seconds = _least(query, "expires", _whole)
    return None if seconds is None else min(seconds * 1000, _LATEST_MS)


def signed_headers(url: str) -> tuple[str, ...]:
    """The lower-case names of the headers that the signature covers, `host` included where the scheme says so."""
    query = parameters(url)
    names = query.get("x-amz-signedheaders") or query.get("x-goog-signedheaders") or ()
    return tuple(dict.fromkeys(name.strip().lower() for name in ";".join(names).split(";") if name.strip()))


def secrets_in(url: str) -> frozenset[str]:
    """The long values of a URL's query: those of whatever scheme that give access are among them."""
    return frozenset(value for values in parameters(url).values() for value in values if len(value) >= 16)


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


def _basic(text: str) -> int | None:
    if not _BASIC.fullmatch(text):
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        return None


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def _iso(text: str) -> int | None:
    """In milliseconds; a part of a second is left out. A plus sign that was not encoded arrives as a blank."""
    if not (match := _ISO.fullmatch(text)):
        return None
    day, minute, second, offset = match.group("day", "minute", "second", "offset")
    zone = (offset or "+00:00").replace(" ", "+")
    try:
        moment = datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}{zone}")
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
