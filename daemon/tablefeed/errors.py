"""All errors that tablefeed raises on purpose.

    TablefeedError
    ├── DeliveryError          one file could not be delivered now; `retry.decide` says what follows
    │   ├── Transient          wait and try again, for as long as it lasts
    │   │   ├── Unreachable        no connection, or it broke
    │   │   ├── Stalled            no byte moved for `stall_timeout`
    │   │   ├── Busy               408, 429, 5xx, S3's RequestTimeout
    │   │   ├── BadAnswer          an answer that cannot be understood (a proxy's page, broken JSON)
    │   │   ├── Damaged            the store holds other bytes than we sent
    │   │   └── DiskTrouble        no space, an I/O error, a share or a database that is away
    │   │       └── Conflict           others changed the same in the ledger: at once again
    │   ├── GrantExpired       the URL is too old: another one, at once
    │   │   └── SignatureRefused   the URL's signature was refused
    │   ├── SourceChanged      the file is no longer the version that was queued
    │   ├── LeaseLost          another node of the fleet has it: left to that one
    │   ├── FileRefused        this file can never be delivered: set aside
    │   └── FeedBlocked        the feed cannot deliver at all: paused and probed
    │       └── KeyRefused         the API refused the key
    ├── NotRestored            a refused file cannot be put back where it was dropped
    ├── EventRefused           the receiver of a webhook does not want an event
    └── Fatal                  the daemon cannot run; carries the exit code
        ├── ConfigInvalid
        ├── LedgerUnusable
        │   └── LedgerRefused      PostgreSQL does not let us in, or not do something
        └── CannotListen

An error carries data and builds its own message, which names the thing and says what to do. None takes a URL with
its query, a key or a response header, so that no message can hold a secret. Foreign exceptions are translated once,
where they enter, with `raise … from None` where their own text would hold a signed URL.
"""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of all commands; those from 64 on are sysexits.h."""

    DONE = 0
    UNDELIVERED = 1
    USAGE = 2
    UNAVAILABLE = 69
    CANNOT_CREATE = 73
    NO_PERMISSION = 77
    CONFIG = 78


class TablefeedError(Exception):
    """The root; never raised itself."""


class DeliveryError(TablefeedError):
    """One file could not be delivered now."""


class Transient(DeliveryError):
    """Waiting helps. `origin` is the failing server's (None: it is not a server's fault)."""

    origin: str | None = None
    is_outage = True
    """Whether the server as a whole may be failing, and not this transfer alone."""
    retry_after: float | None = None
    """Seconds that the server asked us to wait."""
    ambiguous = True
    """Whether the request may have reached the server, so that a store may hold the file although it did not say so."""


class Unreachable(Transient):
    """The connection could not be made, or it broke."""

    def __init__(self, origin: str, cause: str) -> None:
        self.origin = origin
        super().__init__(f"{origin} cannot be reached: {cause}")


class Stalled(Transient):
    """No byte moved for the stall timeout."""

    def __init__(self, origin: str, seconds: float, sent: int, size: int) -> None:
        self.origin = origin
        super().__init__(f"{origin} took nothing for {seconds:g} s ({sent} of {size} bytes were sent)")


class Busy(Transient):
    """The server answered that it cannot now."""

    def __init__(self, origin: str, status: int, code: str = "", retry_after: float | None = None) -> None:
        self.origin = origin
        self.status = status
        self.retry_after = retry_after
        super().__init__(f"{origin} answered {status}{code and ' ' + code}: it is overloaded or out of order")

    @property
    def wants_fewer(self) -> bool:
        """Whether it says that it gets more requests than it takes (429; 503, S3's SlowDown)."""
        return self.status in (429, 503)


class BadAnswer(Transient):
    """The server answered what no ProcessMind and no object store answers."""

    def __init__(self, origin: str, what: str) -> None:
        self.origin = origin
        super().__init__(f"{origin} gave an answer that cannot be used: {what}")


class Damaged(Transient):
    """The bytes at the store are not those we sent."""

    is_outage = False

    def __init__(self, origin: str, digest: str, ours: str, theirs: str) -> None:
        self.origin = origin
        super().__init__(f"bytes were damaged on the way to {origin}: {digest} sent {ours}, received {theirs}")


class DiskTrouble(Transient):
    """The local file system refuses for now."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(f"{path}: {cause}")


class Conflict(DiskTrouble):
    """What several nodes changed in the ledger at the same time got in each other's way: nothing of ours was done."""


class GrantExpired(DeliveryError):
    """The presigned URL is no longer valid. Where another does not help, the server as a whole may be failing."""

    is_outage = True
    retry_after: float | None = None

    def __init__(self, origin: str, code: str) -> None:
        self.origin = origin
        super().__init__(f"{origin} says the presigned URL has expired ({code})")


class SignatureRefused(GrantExpired):
    """The store computes another signature than the URL has."""

    def __init__(self, origin: str, code: str, signed_headers: tuple[str, ...]) -> None:
        super().__init__(origin, code)
        self.signed_headers = signed_headers
        names = ", ".join(signed_headers) or "unknown"
        self.args = (f"{origin} refused the presigned URL ({code}); it was signed for the headers {names}",)


class SourceChanged(DeliveryError):
    """The file at the path is not the version that was queued."""

    def __init__(self, path: str, what: str) -> None:
        self.what = what
        super().__init__(f"{path} {what} after it was queued")


class LeaseLost(DeliveryError):
    """Another node of the fleet has taken the file over: what was done here meanwhile does not count."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is another node's by now: this one gave no sign of life for as long as its lease")


class FileRefused(DeliveryError):
    """This file can never be delivered as it is."""

    def __init__(self, path: str, reason: str, remedy: str) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{path}: {reason}. {remedy}")


class FeedBlocked(DeliveryError):
    """The feed cannot deliver. `maybe_file`: the cause may also be this one file; `retry.decide` finds out.

    `origin` is that of the server which said so, and works; None: no server did.
    """

    def __init__(self, reason: str, remedy: str, *, maybe_file: bool = False, origin: str | None = None) -> None:
        self.reason = reason
        self.remedy = remedy
        self.maybe_file = maybe_file
        self.origin = origin
        super().__init__(f"{reason}. {remedy}")


class KeyRefused(FeedBlocked):
    """The API does not accept the key, or not for what was asked."""


class NotRestored(TablefeedError):
    """A refused file cannot be put back where it was dropped."""


class EventRefused(TablefeedError):
    """The receiver of a webhook does not want an event. `gone`: nor any other, ever."""

    def __init__(self, origin: str, status: int) -> None:
        self.gone = status == 410
        super().__init__(f"{origin} refused the event ({status})")


class Fatal(TablefeedError):
    """The daemon cannot run."""

    exit_code = Exit.CONFIG

    def __init__(self, what: str, remedy: str, exit_code: Exit | None = None) -> None:
        self.what = what
        self.remedy = remedy
        if exit_code is not None:
            self.exit_code = exit_code
        super().__init__(f"{what}. {remedy}" if remedy else what)


class ConfigInvalid(Fatal):
    """The configuration has errors, all of which are listed: (path of the key, what is wrong and what is right)."""

    def __init__(self, source: str, problems: list[tuple[str, str]]) -> None:
        self.source = source
        self.problems = problems
        lines = "".join(f"\n  {path}: {text}" if path else f"\n  {text}" for path, text in problems)
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        super().__init__(f"{source} has {count}:{lines}", "")


class LedgerUnusable(Fatal):
    """The ledger cannot be opened, belongs to another daemon, or is damaged."""

    exit_code = Exit.CANNOT_CREATE


class LedgerRefused(LedgerUnusable):
    """PostgreSQL does not let us in, or not do what we must: people have to mend it, but not here."""

    exit_code = Exit.NO_PERMISSION


class CannotListen(Fatal):
    """The HTTP port cannot be opened."""

    exit_code = Exit.CANNOT_CREATE
