"""What there is to see of a daemon, whether it runs or not: its own answer, or else what its ledger tells."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tablefeed.cli.asking import PATIENCE, NoAnswerError, ask
from tablefeed.cli.whereabouts import Whereabouts, located, lock_holder, whereabouts
from tablefeed.errors import Exit, LedgerUnusable

_START = "Start it: `systemctl start tablefeed`, or `tablefeed run`"
_SEE = "If it is not a pass of `tablefeed run --once`, see its log: `journalctl -u tablefeed`"


@dataclass(frozen=True, slots=True)
class Daemon:
    """What is known of the process."""

    answers: bool
    process: int | None
    """The one that holds the ledger; None: none does, or it is not known."""
    runs: bool
    reason: str = ""
    """Why it does not answer."""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """The snapshot in plain values, as `status.plain` makes it, and where it comes from."""

    daemon: Daemon
    snapshot: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether a daemon answers and nobody needs to look."""
        return self.daemon.answers and self.snapshot.get("ok") is True

    def plain(self) -> dict[str, Any]:
        """All of it for JSON; `source` tells whether the daemon or only the ledger was asked."""
        daemon = self.daemon
        return {
            "source": "daemon" if daemon.answers else "ledger",
            "daemon": {
                "runs": daemon.runs,
                "answers": daemon.answers,
                "process": daemon.process,
                "reason": daemon.reason,
                "remedy": daemon.remedy,
            },
            **self.snapshot,
        }


def look(config: Path | None, environ: Mapping[str, str], patience: float = PATIENCE) -> Picture:
    """What there is to see; `patience`: seconds that the daemon gets.

    Raises Fatal where neither it nor its ledger can be asked.
    """
    try:
        place = whereabouts(config, environ)
    except (OSError, ValueError):
        place = _thorough(config, environ)
    reason = "HTTP is turned off ([http] listen), so only its ledger tells"
    if place.address is not None:
        try:
            snapshot = _snapshot(ask(place.address, "/api/status", patience), place.address)
            return Picture(Daemon(answers=True, process=snapshot.get("pid"), runs=True), snapshot)
        except NoAnswerError as error:
            reason = str(error)
    # The daemon does not need these, and they take long to import.
    from tablefeed.cli.ledgerlook import ledger_snapshot

    daemon = _without_answer(place, reason)
    return Picture(daemon, ledger_snapshot(config, environ, daemon))


def _thorough(config: Path | None, environ: Mapping[str, str]) -> Whereabouts:
    """Where the quick look finds nothing, the thorough one says what is wrong. Raises Fatal."""
    from tablefeed.config import load

    settings = load(config, environ)
    return located(settings.http.address, settings.ledger.url, settings.fleet.node)


def _snapshot(body: bytes, address: tuple[str, int]) -> dict[str, Any]:
    try:
        snapshot = json.loads(body)
    except ValueError:
        snapshot = None
    if not isinstance(snapshot, dict) or not isinstance(snapshot.get("feeds"), list):
        raise NoAnswerError(f"{address[0]}:{address[1]} gave an answer that cannot be understood")
    # What whoever asks over HTTP may do there is no part of the picture.
    return {name: value for name, value in snapshot.items() if name != "may"}


def _without_answer(place: Whereabouts, reason: str) -> Daemon:
    if place.ledger is None:
        return _node_without_answer(place, reason)
    try:
        holder = lock_holder(place.ledger)
    except OSError as error:
        raise LedgerUnusable(
            f"{reason}, and the ledger {place.ledger} cannot be read: {os.strerror(error.errno or 0)}",
            "Run this as the user that runs the daemon, or as root",
            Exit.NO_PERMISSION,
        ) from None
    if holder is None:
        return Daemon(answers=False, process=None, runs=False, reason="no daemon runs", remedy=_START)
    process = int(holder) if holder.isdecimal() else None
    remedy = "" if place.address is None else _SEE
    return Daemon(answers=False, process=process, runs=True, reason=reason, remedy=remedy)


def _node_without_answer(place: Whereabouts, reason: str) -> Daemon:
    """No lock of this machine tells whether it runs, but its lease does."""
    from tablefeed.cli.nodelook import standing_of

    try:
        standing = standing_of(place)
    except LedgerUnusable as error:
        raise LedgerUnusable(f"{reason}, and {error.what}", error.remedy, error.exit_code) from None
    if standing is None or not standing.living:
        why = f"no daemon runs as node {place.node}"
        return Daemon(answers=False, process=None, runs=False, reason=why, remedy=_START)
    remedy = "" if place.address is None else f"{_SEE}. One that was killed is taken for alive until its lease ends"
    why = f"{reason}; node {place.node} has a lease"
    return Daemon(answers=False, process=None, runs=True, reason=why, remedy=remedy)
