"""All rows of one ledger copied into another, on whichever database either is. Everything blocks.

Rows keep their ids, since others refer to them. What is there already is not copied again, so that a copy which was
interrupted goes on where it was; until it has ended nobody else can use the target. Claims stay behind: what was in
flight is queued again, with its grant, so that the same object is overwritten. Nodes and their leases stay behind too.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tablefeed.ledger import exclusive
from tablefeed.ledger.schema import files
from tablefeed.ledger.sides import TABLES, Place, Side, Source, Target, columns_of

Told = Callable[[int, int], None]
"""Is told how many steps are done, and of how many: a row is copied, read again, and read from the other side."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a ledger holds."""

    rows: Mapping[str, int]
    """How many, by table."""
    states: Mapping[str, int]
    """How many files, by state."""
    checksum: str
    """Over all values of all rows, in order."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy has done, and how both sides are after it."""

    source: Contents
    """As it was to be copied."""
    target: Contents
    """As it is there."""
    added: int
    released: int
    """Files that were in flight and are queued again."""

    @property
    def is_whole(self) -> bool:
        """Whether both sides are the same."""
        return self.source == self.target


def copy_ledger(source_url: str, target_url: str, place: Place, told: Told = lambda _done, _all: None) -> Copied:
    """Copy a ledger, compare both sides, and let the target be used where they are the same.

    Raises LedgerUnusable where the source is in use or cannot be read, or the target is in use, cannot be written, or
    holds something else; nothing of the source is ever changed, and nothing of a target that is refused.
    """
    with exclusive.source(source_url) as source:
        rows = Source(source, place)
        rows.assert_one_machine()
        with exclusive.target(target_url) as target:
            kept = Target(target)
            kept.assert_part_of(rows)
            steps = _Steps(3 * rows.count(), told)
            added = _add(rows, kept, steps)
            copied = Copied(_contents(rows, steps), _contents(kept, steps), added, rows.count_held())
            if copied.is_whole:
                kept.finish()
            return copied


class _Steps:
    """How far a copy is."""

    def __init__(self, every: int, told: Told) -> None:
        self._done = 0
        self._every = every
        self._told = told

    def did(self, count: int) -> None:
        """So many more."""
        self._done += count
        self._told(self._done, self._every)


def _add(source: Source, target: Target, steps: _Steps) -> int:
    """Add what is missing; returns how many rows that were."""
    target.raise_numbers(source)
    if (there := target.count()) == source.count():
        steps.did(there)
        return 0
    target.begin()
    added = 0
    for table in TABLES:
        for rows in source.batches(table):
            added += target.add(table, rows)
            steps.did(len(rows))
    return added


def _contents(side: Side, steps: _Steps) -> Contents:
    checksum = hashlib.blake2b(digest_size=16)
    counts: Counter[str] = Counter()
    states: Counter[str] = Counter()
    for table in TABLES:
        state = [column.name for column in columns_of(table)].index("state") if table is files else None
        for rows in side.batches(table):
            counts[table.name] += len(rows)
            if state is not None:
                states.update(row[state] for row in rows)
            for row in rows:
                checksum.update(repr((table.name, row)).encode())
            steps.did(len(rows))
    return Contents({table.name: counts[table.name] for table in TABLES}, dict(states), checksum.hexdigest())
