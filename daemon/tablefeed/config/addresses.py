"""The addresses that settings have: of the API, of webhooks, of the ledger's database, and the one to listen on.

And how much of each may be shown. No message repeats a value, which could hold a password.
"""

import re
from typing import Annotated
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator

from tablefeed.config.fields import Form
from tablefeed.http import origin_of, parse_url


def _base_url(value: str) -> str:
    form = 'must have the form "https://api.processmind.com"'
    try:
        parts = urlsplit(value)
        _ = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:
        raise ValueError(form) from None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or re.search(r"\s", value)
        or not value.isprintable()
    ):
        raise ValueError(form)
    if "@" in parts.netloc:
        raise ValueError(f"{form}, without a user or password")
    if "?" in value or "#" in value:
        raise ValueError(f'{form}, without "?" and "#"')
    return value.rstrip("/")


def _webhook_url(value: str) -> str:
    form = 'must have the form "https://hooks.example.com/path"'
    if not value:
        return value
    try:
        url = parse_url(value)
    except ValueError:
        raise ValueError(form) from None
    if url.raw_user is not None or url.raw_password is not None:
        raise ValueError(f"{form}, without a user or password: use notify_secret_file to sign what is sent")
    if "#" in value:
        raise ValueError(f'{form}, without "#"')
    return value


def masked_url(value: str) -> str:
    """A webhook's URL as far as it may be shown: who knows its path can often send there."""
    return value and f"{origin_of(parse_url(value))}/[hidden]"


def parse_listen(value: str) -> tuple[str, int] | None:
    """Host and port of "host:port", "[IPv6]:port" or ":port" (all addresses); None for "".

    Raises ValueError.
    """
    if not value:
        return None
    found = re.fullmatch(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_.-]*)):(?P<port>[0-9]{1,5})", value)
    if found is None or int(found["port"]) > 65_535:
        raise ValueError('must have the form "127.0.0.1:8787" or "[::1]:8787"; "" turns it off')
    return found["ipv6"] or found["host"] or "", int(found["port"])


def _listen(value: str) -> str:
    parse_listen(value)
    return value


def _ledger_url(value: str) -> str:
    right = 'use "sqlite:////var/lib/tablefeed/ledger.db" (four slashes: the path is absolute)'
    if value.startswith(("postgresql", "postgres:")):
        return _database_url(value.rstrip())  # a secret that is made of a file often ends with its newline
    if not re.fullmatch(r"sqlite:///(/[^?#\0]*[^/?#\0])", value):
        raise ValueError(f'must name an SQLite file: {right}; or a database: "{_DATABASE_FORM}"')
    return value


_DATABASE_FORM = "postgresql+psycopg://user:password@host/database"
_PERCENT = "a password with signs such as / or @ in it is written percent-encoded"


def _database_url(value: str) -> str:
    """A database of PostgreSQL. Nothing of the value may be told: it has a password."""
    form = f'must have the form "{_DATABASE_FORM}"'
    scheme, _, rest = value.partition("://")
    if scheme not in ("postgresql+psycopg", "postgresql", "postgres") or not rest:
        raise ValueError(form)
    try:
        parts = urlsplit(f"postgresql://{rest}")
        parts.port  # noqa: B018 - it is looked at where it is asked for
    except ValueError:
        raise ValueError(f"{form}; {_PERCENT}") from None
    # With a second @, or one behind the host, those that read the URL would not agree where the password ends.
    if rest.count("@") > 1 or "@" in f"{parts.path}{parts.query}{parts.fragment}" or "#" in rest:
        raise ValueError(f"{form}; {_PERCENT}")
    if len(parts.path) < len("/d") or "/" in parts.path[1:] or not rest.isprintable() or " " in rest:
        raise ValueError(form)
    return f"postgresql+psycopg://{rest}"


def password_of(value: str) -> str:
    """The password in the ledger's URL as PostgreSQL gets it; empty: there is none, or a word that is shown anyway."""
    if value.startswith("sqlite"):
        return ""
    parts = urlsplit(value)
    given = [password for name, password in parse_qsl(parts.query) if name in ("password", "sslpassword")]
    shown = (unquote(parts.username or ""), parts.hostname, parts.path[1:])
    return next((word for word in (unquote(parts.password or ""), *given) if word and word not in shown), "")


def masked_database(value: str) -> str:
    """The ledger's URL as far as it may be shown: without its password."""
    if value.startswith("sqlite"):
        return value
    parts = urlsplit(value)
    user, _, place = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{parts.scheme}://{name}{':[hidden]' if colon else ''}{'@' if user else ''}{place}{parts.path}"


BaseUrl = Annotated[str, AfterValidator(_base_url)]
Listen = Annotated[str, AfterValidator(_listen)]
LedgerUrl = Annotated[str, AfterValidator(_ledger_url), Form(masked_database, "^(sqlite:////.+|postgres.+://.+)$")]
WebhookUrl = Annotated[str, AfterValidator(_webhook_url), Form(masked_url, "^(https?://.*)?$")]
