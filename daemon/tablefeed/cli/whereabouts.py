"""Where the daemon of a configuration is to be found, asked quickly and however else that configuration is.

A health check runs every few seconds, and one typing error in a file that the daemon has read long ago is no reason to
call it dead. So this looks at two keys alone, where `config.load` reads and checks everything.
"""

import fcntl
import json
import os
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIG_VARIABLE = "TABLEFEED_CONFIG"
FEEDS_VARIABLE = "TABLEFEED_FEEDS"
DEFAULT_PATH = Path("/etc/tablefeed/tablefeed.toml")
DEFAULT_LISTEN = "127.0.0.1:8787"
DEFAULT_LEDGER = "sqlite:////var/lib/tablefeed/ledger.db"
_SQLITE, _POSTGRES = "sqlite:///", "postgres"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a daemon answers, and where its ledger lies."""

    address: tuple[str, int] | None
    """Host and port to ask; None: HTTP is turned off."""
    ledger: Path | None
    """Its file; None: it is on PostgreSQL, and has no lock of this machine."""
    url: str = field(default="", repr=False)
    """The ledger's, which may hold a password."""
    node: str = ""
    """What the daemon is called in its fleet; empty: there is none."""


def whereabouts(config: Path | None, environ: Mapping[str, str], *, default: Path = DEFAULT_PATH) -> Whereabouts:
    """Where the daemon of this file and this environment is. Raises OSError and ValueError where that is not told."""
    table = _table(config, environ, default)
    listen = environ.get("TABLEFEED_HTTP__LISTEN", _value(table, "http", "listen", DEFAULT_LISTEN))
    url = environ.get("TABLEFEED_LEDGER__URL", _value(table, "ledger", "url", DEFAULT_LEDGER))
    if not url.startswith((_SQLITE, _POSTGRES)):
        raise ValueError('[ledger] url must look like "sqlite:////var/lib/tablefeed/ledger.db"')
    node = environ.get("TABLEFEED_FLEET__NODE", _value(table, "fleet", "node", ""))
    return located(_address(listen), url, node)


def located(address: tuple[str, int] | None, url: str, node: str) -> Whereabouts:
    """The whereabouts that these settings tell; an empty `node` is called as its host is."""
    if url.startswith(_SQLITE):
        return Whereabouts(address, Path(url.removeprefix(_SQLITE)), url)
    database = f"postgresql+psycopg://{url.partition('://')[2].rstrip()}"
    return Whereabouts(address, None, database, node or socket.gethostname())


def feed_names(config: Path | None, environ: Mapping[str, str], *, default: Path = DEFAULT_PATH) -> list[str]:
    """The names of the feeds. Raises OSError and ValueError where the configuration cannot be read."""
    if FEEDS_VARIABLE in environ:
        feeds = json.loads(environ[FEEDS_VARIABLE])
    else:
        feeds = _table(config, environ, default).get("feeds")
    names = [feed.get("name") for feed in feeds if isinstance(feed, dict)] if isinstance(feeds, list) else []
    return [name for name in names if isinstance(name, str)]


def _table(config: Path | None, environ: Mapping[str, str], default: Path) -> dict[str, Any]:
    file = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else default)
    if file == default and config is None and not os.path.lexists(file):
        return {}
    return tomllib.loads(file.read_bytes().decode("utf-8-sig"))


def _value(table: Mapping[str, Any], section: str, key: str, default: str) -> str:
    values = table.get(section, {})
    value = values.get(key, default) if isinstance(values, dict) else default
    if not isinstance(value, str):
        raise ValueError(f"[{section}] {key} must be a text in quotes")  # noqa: TRY004 - it is the file that is wrong
    return value


def _address(listen: str) -> tuple[str, int] | None:
    if not listen:
        return None
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise ValueError('[http] listen must have the form "127.0.0.1:8787"')
    # What listens on all addresses is asked on this machine's own.
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)  # noqa: S104


def lock_holder(ledger: Path) -> str | None:
    """The process that holds the ledger's lock, as its number or `unknown`; None: no daemon runs.

    Raises OSError when this user may not look.
    """
    try:
        fd = os.open(ledger.with_name(f"{ledger.name}.lock"), os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        # Shared, so that two who look at the same time do not see each other. A daemon that starts in this instant
        # can tell it from the exclusive lock of another daemon.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.pread(fd, 32, 0).decode(errors="replace").strip()
        return number if number.isdecimal() else "unknown"
    finally:
        os.close(fd)
    return None
