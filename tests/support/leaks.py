"""What counts as a secret, in which spellings it is looked for, and where: bytes, files, the list of processes."""

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

SHORTEST = 12
"""Characters of a secret that must not be seen alone: what logs cut off shows the beginning or the end of it."""

_SECRET_PARAMETERS = (
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
    "x-goog-signature",
    "x-goog-credential",
    "signature",
    "awsaccesskeyid",
    "googleaccessid",
    "sig",
)


def secrets_in(url: str) -> set[str]:
    """What gives access in a presigned URL: signatures, tokens, access keys (a credential's scope is known to all),
    and user and password."""
    parts = urlsplit(url)
    found = {
        value.partition("/")[0] if name.lower().endswith("credential") else value
        for name, value in parse_qsl(parts.query)
        if name.lower() in _SECRET_PARAMETERS
    }
    return found | {unquote(word) for word in (parts.username, parts.password) if word}


def spellings(secret: str) -> set[bytes]:
    """A secret as it may stand in a text: whole, its beginning and its end; as it is, in either case and encoded."""
    pieces = {secret, secret[:16], secret[-SHORTEST:]}
    texts = {spelt for piece in pieces for spelt in (piece, piece.lower(), piece.upper())}
    encoded = {spell(text) for text in texts for spell in (_percent, quote, quote_plus, _twice)}
    lower_hex = {_lower_escapes(text) for text in encoded}
    return {text.encode() for text in texts | encoded | lower_hex} | set(_base64(secret.encode()))


def _percent(text: str) -> str:
    return quote(text, safe="")


def _twice(text: str) -> str:
    return _percent(_percent(text))


def _lower_escapes(text: str) -> str:
    head, *rest = text.split("%")
    return head + "".join(f"%{part[:2].lower()}{part[2:]}" for part in rest)


def _base64(raw: bytes) -> Iterator[bytes]:
    """At each of the three places that it may have among other bytes, without what depends on those."""
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * before + raw)[4 if before else 0 :].rstrip(b"=")[:-1]


class Search:
    """Looks for a set of secrets."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Too short ones would be found everywhere."""
        self.secrets = sorted(set(secrets))
        assert all(len(secret) >= SHORTEST for secret in self.secrets), self.secrets
        self._needles = {needle: secret for secret in self.secrets for needle in spellings(secret)}

    def leaks(self, text: str | bytes) -> list[str]:
        """Each spelling that is found, with what stands around it."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        return [
            f"{needle!r} in …{data[max(0, at - 120) : at + len(needle) + 40]!r}…"
            for needle in self._needles
            if (at := data.find(needle)) >= 0
        ]

    def leaks_below(self, root: Path, *, but: Iterable[Path] = ()) -> list[str]:
        """The same in each file below a directory and in its path, except in and below some."""
        left_out = tuple(but)
        return [
            f"{path}: {leak}"
            for path in sorted(root.rglob("*"))
            if path.is_file() and not any(path == other or other in path.parents for other in left_out)
            for leak in self.leaks(bytes(path) + b"\n" + path.read_bytes())
        ]


def command_lines() -> bytes:
    """The arguments of every process, as everybody can read them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:  # it has ended
            continue
    return b"\n".join(found)
