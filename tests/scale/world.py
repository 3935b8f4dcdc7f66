"""The words of the model: what everything costs, what a node has to do, and what was seen. All times are seconds."""

from dataclasses import dataclass
from enum import IntEnum


class Change(IntEnum):
    """The changes of a lot, in order."""

    QUEUED = 0
    CLAIMED = 1
    GRANTED = 2
    UPLOADED = 3
    ARCHIVED = 4


@dataclass(frozen=True, slots=True)
class World:
    """What everything costs, and the limits."""

    cores: int
    """Of PostgreSQL."""
    transaction: float
    """CPU of PostgreSQL for a transaction that changes something, beside its rows."""
    row: float
    """CPU of PostgreSQL for each row in it."""
    read: float
    """CPU of PostgreSQL for a transaction that only reads."""
    seen: float
    """CPU of PostgreSQL for each node that a heartbeat looks at; it looks at all."""
    flush: float
    """From the end of a transaction's work to its commit on the disk."""
    wal_rate: float
    """Bytes a second that can be written."""
    wal_of_row: float
    """Bytes of one change of one file."""
    api_rate: float
    """Calls a second of the whole fleet."""
    api: float
    """How long a call takes."""
    upload: float
    move: float
    node_cpu: float
    """CPU of a node for a file."""
    feed_row_share: float = 1.0
    """Of the commits that may change a shared feed's row: how many do."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a node has to do."""

    lot: int = 1
    """Files of a lot."""
    reads: float = 0.0
    """Transactions of a lot that only read, before its claim."""
    arrivals: float = 0.0
    """Lots that come to a node in a second, at random."""
    backlog: int = 0
    """Lots that a node has in flight all the time, from a queue without end; 0: only what arrives."""
    feed_row: frozenset[Change] = frozenset()
    """Changes whose commit also changes the one row of a feed that all nodes share."""
    beat_every: float = 0.0
    """From the end of a node's heartbeat to its next one; 0: none."""
    read_every: float = 0.0
    """Between two other transactions of a node that only read; 0: none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen between the warm-up and the end."""

    seconds: float
    files: float
    """A second."""
    transactions: float
    """A second, of PostgreSQL; those of heartbeats and those that only read too."""
    cpu: float
    """Of PostgreSQL's cores: which part was at work."""
    wal: float
    """Bytes a second."""
    api: float
    """Calls a second."""
    node_cpu: float
    """Of one core of a node."""
    feed_row: float
    """Which part of the time the shared feed's row was locked."""
    delay: float
    """What the ledger added to a file's way, the median; 0 where no file came."""
    delay_95: float
    slowest_beat: float
