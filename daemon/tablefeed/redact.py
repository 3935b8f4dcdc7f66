"""Takes secrets out of text: presigned queries, passwords in URLs, keys in headers, and every secret that is known.

Each pattern consumes whatever it looks at, so the time is linear in the text, whatever the text. Where a pattern
cannot tell where a secret ends it takes too much rather than too little.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from functools import cached_property, lru_cache
from html import escape
from os import PathLike, fspath
from typing import Any

REDACTED = "[redacted]"

_DEEPEST = 8

_LAST_WORDS = "signature|sig|credentials?|token|passw(?:or)?d|access(?:key)?id"
_API_KEY = "api(?:[-_]|%(?:25)*2D)?key"
_NAMES = rf"(?:authorization|{_API_KEY}|signatureprovided|{_LAST_WORDS})"
"""What names of secrets end with: `X-Amz-Signature`, `AWSAccessKeyId`, `x-api-key`, `Proxy-Authorization`, …"""

_QUOTED = r"""[bu]?(?P<quote>\\*["'])[^\r\n]*?(?:(?<!\\)(?P=quote)|(?=[\r\n])|\Z)"""
_FLAGS = re.ASCII | re.IGNORECASE | re.VERBOSE

_URL = re.compile(r""":(?:\\?/){2}(?P<rest>(?:[^ \t\r\n\f\v"'<>]|["'](?=[\w&%=@]))+)""", re.ASCII)
_MISPLACED_PASSWORD = re.compile(r"[^:/?#@]*:(?!\d*(?:[/?#]|\Z))")
"""A colon that no port follows: the slash or question mark after it belongs to an unquoted password."""

_HEADER = re.compile(
    rf"""(?P<head>(?:authorization [ \t]*(?:[:=]|%(?:25)*3[AD])|(?:{_API_KEY}|security-token)[ \t]*:)[ \t]*)
    (?:{_QUOTED}|[^\r\n]*)""",
    _FLAGS,
)
_KEYED = re.compile(
    rf"""(?P<head>{_NAMES}\\*["'][ \t]*
      (?:[:=]|=>|,(?=[ \t]*b?\\*["'])(?:[ \t]*\\*["']value\\*["'][ \t]*:)?)[ \t]*)
    (?:{_QUOTED}|[\[(][^\])\r\n]*[\])]?|[^,)}}\]\r\n]*)""",
    _FLAGS,
)
_ASSIGNED = re.compile(
    rf"""(?P<head>{_NAMES}[ \t]*(?:=|%(?:25)*3D|\\+u003D)[ \t]*)(?:{_QUOTED}|[^& \t\r\n\f\v"'<>]*)""",
    _FLAGS,
)
_TAGGED = re.compile(rf"(?P<head><[\w-]*{_NAMES}>)[^<]*", _FLAGS)
_SECRET_FIELD = re.compile(rf".*{_NAMES}", re.ASCII | re.IGNORECASE | re.DOTALL)
_NUMBERS = frozenset({int, float, bool, type(None)})

_MARKERS = (":/", ":\\/", "sig", "credential", "token", "passw", "access", "key", "authorization")
"""One of these is in every lower-cased text that a pattern above could change."""

_MARKED = re.compile("|".join(map(re.escape, _MARKERS)), re.IGNORECASE)
_ESCAPE_SIGN = re.compile(r"[%\\+&]")
_BACKSLASHES = r"\\{0,7}"
_SHORT_ESCAPES = {'"': '"', "'": "'", "/": "/", "\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", " ": "+"}


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """The text without anything that gives access: what the patterns know, and each of `secrets`, escaped or not."""
    return Redactor(secrets).text(text)


class Redactor:
    """Redacts with one set of known secrets, for which it is prepared once."""

    def __init__(self, secrets: Collection[str]) -> None:
        """Blank secrets are no secrets: they would blot out every blank."""
        self._secrets = sorted({secret for secret in secrets if secret.strip()}, key=len, reverse=True)

    @cached_property
    def _known(self) -> re.Pattern[str]:
        """Built when a text may hold a secret at last: it takes long, and hardly any text does."""
        return re.compile("|".join(map(_in_any_spelling, self._secrets)))

    def text(self, text: str) -> str:
        """The text without secrets; the very same object when there was none."""
        if self._secrets and self._may_hold_known(text):
            text = self._known.sub(REDACTED, text)
        if not _MARKED.search(text):
            return text
        text = _URL.sub(_bare_url, text)
        for pattern in (_HEADER, _KEYED, _ASSIGNED, _TAGGED):
            text = pattern.sub(rf"\g<head>{REDACTED}", text)
        return text

    def is_clean(self, text: str) -> bool:
        """Whether nothing in the text can be a secret. Faster than `text`, and more suspicious."""
        return not (_MARKED.search(text) or (self._secrets and self._may_hold_known(text)))

    def _may_hold_known(self, text: str) -> bool:
        return _ESCAPE_SIGN.search(text) is not None or any(secret in text for secret in self._secrets)


def plain_fields(fields: Mapping[str, object], text: Callable[[str], str]) -> dict[str, object]:
    """Each field as None, bool, int, float, text, list or dict; its name, and each text in it, as `text` returns it.

    What belongs to a name like `x-api-key` is left out whatever it is. Anything else is told by its own words.
    """
    return _plain_dict(fields, text, _DEEPEST)


def is_plain(fields: Mapping[str, object], redactor: Redactor) -> bool:
    """Whether `plain_fields` would change nothing, told by one look at all of it. Names must be printable text."""
    texts: list[str] = []
    for name, value in fields.items():
        if type(value) is str:
            texts.append(value)
        elif type(value) not in _NUMBERS or (type(value) is float and not math.isfinite(value)):
            return False
        if not _is_plain_name(name):
            return False
    return redactor.is_clean("\n".join(texts))


def _plain_dict(items: Mapping[Any, object], text: Callable[[str], str], depth: int) -> dict[str, object]:
    return {
        text(str(key)): REDACTED if _is_secret_field(key, item) else _plain(item, text, depth)
        for key, item in items.items()
    }


def _plain(value: object, text: Callable[[str], str], depth: int) -> object:
    match value:
        case None | bool() | int():
            return value
        case str():
            return text(str.__str__(value))
        case float():
            return value if math.isfinite(value) else str(value)
        case dict() if depth:
            return _plain_dict(value, text, depth - 1)
        case list() | tuple() | set() | frozenset() if depth:
            return [_plain(item, text, depth - 1) for item in _without_secret_pair(value)]
        case BaseException():
            return text(f"{type(value).__name__}: {value}")
        case PathLike():
            return text(str(fspath(value)))
        case _:
            return text(str(value))


def _is_secret_field(key: object, value: object) -> bool:
    return value is not None and _is_secret_name(key.decode("latin-1") if isinstance(key, bytes) else str(key))


def _is_secret_name(name: str) -> bool:
    return _SECRET_FIELD.fullmatch(name) is not None


@lru_cache(maxsize=256)
def _is_plain_name(name: str) -> bool:
    return name.isidentifier() and not _is_secret_name(name)


def _without_secret_pair(items: Collection[object]) -> Collection[object]:
    match items:
        case (str() | bytes() as key, value) if _is_secret_field(key, value):
            return (key, REDACTED)
        case _:
            return items


def _bare_url(match: re.Match[str]) -> str:
    """Scheme, host and path of a URL: all of it that may be shown."""
    rest = match["rest"]
    end = min((at for at in map(rest.find, "?#/") if at >= 0), default=len(rest))
    if "@" in rest and ("@" in rest[:end] or _MISPLACED_PASSWORD.match(rest)):
        at = rest.rindex("@", 0, None if "@" not in rest[:end] else end)
        rest = f"{REDACTED}{rest[at:]}"
    cut = min((at for at in map(rest.find, "?#") if at >= 0), default=len(rest))
    if cut < len(rest):
        closing = rest[len(rest.rstrip(").,;:}\\")) :]
        rest = f"{rest[: cut + 1]}{REDACTED}{closing}"
    return match[0].removesuffix(match["rest"]) + rest


def _in_any_spelling(secret: str) -> str:
    """A pattern for the secret verbatim, percent-encoded (also twice), and as in JSON, HTML and Python literals.

    Every repetition is bounded, so that long runs of backslashes cost no more than other text.
    """
    return "".join(map(_spellings, re.findall(r"\\+|[^\\]", secret)))


def _spellings(piece: str) -> str:
    """A pattern for one character, or for a run of backslashes."""
    percent = "".join(f"%(?:25){{0,3}}(?i:{byte:02X})" for byte in _utf8(piece))
    if piece[0] == "\\":
        return rf"(?:\\{{{len(piece)},{8 * len(piece)}}}+|{percent})"
    units = piece.encode("utf-16-be", "surrogatepass").hex()
    json_escape = "".join(rf"{_BACKSLASHES}u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4))
    bytes_escape = "".join(rf"{_BACKSLASHES}x(?i:{byte:02X})" for byte in _utf8(piece))
    python_escape = rf"{_BACKSLASHES}(?:x(?i:{ord(piece):02X})|U(?i:{ord(piece):08X}))"
    others = [_BACKSLASHES + re.escape(_SHORT_ESCAPES[piece])] if piece in _SHORT_ESCAPES else []
    html = [re.escape(escape(piece))] if escape(piece) != piece else []
    spellings = [re.escape(piece), percent, json_escape, bytes_escape, python_escape, *others, *html]
    return f"(?:{'|'.join(spellings)})"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
