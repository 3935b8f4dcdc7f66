"""Whether the daemon of a configuration lives, for health checks: quick, and silent when it does."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from tablefeed.cli.asking import NoAnswerError, ask
from tablefeed.cli.whereabouts import Whereabouts, lock_holder, whereabouts


def why_not_alive(config: Path | None, environ: Mapping[str, str]) -> str:
    """Why the daemon cannot be said to live, in one line; empty when it does.

    `/healthz` is asked, which answers as long as the loop turns. Where HTTP is turned off, the ledger's lock tells, and
    in a fleet whether the node's lease is over.
    """
    try:
        place = whereabouts(config, environ)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except tomllib.TOMLDecodeError as error:
        return f"the configuration is not TOML: {error}"
    except ValueError as error:
        return f"the configuration cannot be used: {error}"
    try:
        if place.address is not None:
            ask(place.address, "/healthz")
        elif place.ledger is None:
            return _why_not_in_fleet(place)
        elif lock_holder(place.ledger) is None:
            return f"no daemon runs: the lock of the ledger {place.ledger} is free"
    except NoAnswerError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename} cannot be opened: {os.strerror(error.errno or 0)}"
    return ""


def _why_not_in_fleet(place: Whereabouts) -> str:
    # Only this needs the database, and takes long to import.
    from tablefeed.cli.nodelook import standing_of
    from tablefeed.errors import LedgerUnusable

    try:
        standing = standing_of(place)
    except LedgerUnusable as error:
        return f"whether the daemon lives cannot be told while HTTP is turned off ([http] listen): {error}"
    if standing is None or not standing.living:
        return f"no daemon runs: node {place.node} gives no sign of life in its ledger"
    return ""
