"""The ledger as a few lines of Python, to compare the real one with. Times are Unix milliseconds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tablefeed.errors import DeliveryError
from tablefeed.ledger import Closing, Failure, Purge, Want, comes_first
from tablefeed.ledger.changes import Delivery
from tablefeed.model import OPEN_STATES, Entry, FileVersion, Grant, Order, Receipt, State

DELIVERED = (State.ARCHIVED, State.SKIPPED)


@dataclass
class Row:
    """One row of `files`."""

    id: int
    version: FileVersion
    state: State
    queued_at: int
    due_at: int
    held: bool = False
    attempts: int = 0
    failed_at: int | None = None
    error: DeliveryError | None = None
    grant: Grant | None = None
    receipt: Receipt | None = None
    target: str | None = None
    duplicate_of: int | None = None
    closed_at: int | None = None
    destination: str | None = None
    left_in_place: bool = False
    removed_at: int | None = None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_STATES

    def is_due(self, now: int) -> bool:
        """Whether it may be worked on: what did not fail waits for nothing."""
        return self.due_at <= now or self.error is None

    @property
    def told(self) -> tuple[object, ...]:
        """Everything but who holds it, as the ledger keeps it."""
        grant, receipt = self.grant, self.receipt
        return (
            *(self.id, self.version, self.state.value, self.queued_at, self.due_at, self.held, self.attempts),
            *(
                self.failed_at,
                type(self.error).__name__ if self.error else None,
                str(self.error) if self.error else None,
            ),
            *((grant.url, grant.expires_at) if grant else (None, None)),
            *((receipt.md5, receipt.finished_at) if receipt else (None, None)),
            *(self.target, self.duplicate_of, self.closed_at, self.destination, self.left_in_place, self.removed_at),
        )

    @property
    def entry(self) -> Entry:
        """As its claimant sees it."""
        return Entry(
            *(self.id, self.version, self.state, self.queued_at, self.attempts, self.failed_at, self.grant),
            receipt=self.receipt,
            duplicate_of=self.duplicate_of,
        )


class Model:
    """All rows. A transition takes `now` and its items, as the ledger's do, and returns a result for each."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.works_on: set[int] = set()
        """The rows that the daemon has claimed and not let go of: what it does to others is no change."""
        self._last_id = 0

    def copy(self) -> "Model":
        """A copy that goes its own way."""
        other = Model()
        other.rows = {row.id: replace(row) for row in self.rows.values()}
        other.works_on = {*self.works_on}
        other._last_id = self._last_id
        return other

    def open_rows(self) -> Iterator[Row]:
        """Those that are not closed."""
        return (row for row in self.rows.values() if row.is_open)

    def apply(self, name: str, now: int, items: Sequence[Any]) -> list[Any]:
        """One transition over a batch. A row's state is asked before the batch, as the ledger does it."""
        transition: Callable[[int, Sequence[Any]], list[Any]] = getattr(self, name)
        return transition(now, items)

    def enqueue(self, now: int, items: Sequence[Sequence[FileVersion]]) -> list[int]:
        counts = []
        for versions in items:
            counts.append(0)
            for version in {version.path: version for version in versions}.values():
                known = self._open_at(version)
                if known is not None and (known.version == version or known.state is not State.QUEUED):
                    continue
                if known is not None:
                    self._close(known, State.GONE, now)
                self._add(version, State.QUEUED, now)
                counts[-1] += 1
        return counts

    def _open_at(self, version: FileVersion) -> Row | None:
        place = (version.feed, version.path)
        return next((row for row in self.open_rows() if (row.version.feed, row.version.path) == place), None)

    def _add(self, version: FileVersion, state: State, now: int) -> Row:
        self._last_id += 1
        row = self.rows[self._last_id] = Row(self._last_id, version, state, now, now)
        return row

    def refuse(self, now: int, items: Sequence[tuple[FileVersion, DeliveryError]]) -> list[int]:
        ids = []
        for version, error in items:
            left = next((row.id for row in self.rows.values() if row.left_in_place and row.version == version), None)
            if left is not None:
                ids.append(left)
                continue
            known = self._open_at(version)
            if known is not None and known.state is State.QUEUED:
                self._close(known, State.GONE, now)
            row = self._add(version, State.REJECTED, now)
            row.error, row.failed_at, row.closed_at, row.left_in_place = error, now, now, True
            ids.append(row.id)
        return ids

    def candidates(self, want: Want, now: int) -> tuple[list[Row], list[Row]]:
        """(those that wait for their move, those that may be sent), each in its order; the limit is not applied."""
        free = [row for row in self.open_rows() if row.version.feed == want.feed and not row.held]
        moves = sorted((row for row in free if row.state is State.UPLOADED and row.is_due(now)), key=lambda r: r.due_at)
        queued = sorted((row for row in free if row.state is State.QUEUED), key=lambda row: _key(want.order, row))
        if want.strict:
            first = queued[:1]
            waits = want.ahead is not None and first and not comes_first(want.order, first[0].version, want.ahead)
            return moves, [row for row in first if row.is_due(now) and not waits]
        return moves, [row for row in queued if row.is_due(now)]

    def take(self, ids: Sequence[int]) -> None:
        """What a claim does to its rows."""
        for row in map(self.rows.__getitem__, ids):
            row.held = True
            self.works_on.add(row.id)
            row.state = State.UPLOADING if row.state is State.QUEUED else row.state

    def _in(
        self, states: Sequence[State], items: Sequence[Any], ids: Sequence[int]
    ) -> Iterator[tuple[Any, Row | None]]:
        rows = [self.rows.get(entry_id) for entry_id in ids]
        fits = [row if row is not None and row.state in states else None for row in rows]
        return zip(items, fits, strict=True)

    def _held(
        self, states: Sequence[State], items: Sequence[Any], ids: Sequence[int], *, last: bool = True
    ) -> Iterator[tuple[Any, Row | None]]:
        """As `_in`, of rows that the daemon holds, or that nobody holds; `last`: it lets go of them then."""
        for item, row in self._in(states, items, ids):
            yield item, row if row is not None and row.held == (row.id in self.works_on) else None
        if last:
            self.works_on -= {*ids}

    def granted(self, now: int, items: Sequence[tuple[int, Grant]]) -> list[bool]:
        done = []
        for (_, grant), row in self._held([State.UPLOADING], items, [entry_id for entry_id, _ in items], last=False):
            if row is not None:
                row.grant = grant
            done.append(row is not None)
        return done

    def uploaded(self, now: int, items: Sequence[Delivery]) -> list[bool]:
        done = []
        for item, row in self._held([State.UPLOADING], items, [item.entry_id for item in items], last=False):
            if row is not None:
                row.state, row.grant, row.attempts, row.error = State.UPLOADED, None, 0, None
                row.receipt = replace(item.receipt, size=row.version.size)
                row.due_at, row.target, row.duplicate_of = 0, item.target, item.duplicate_of
            done.append(row is not None)
        return done

    def archived(self, now: int, items: Sequence[Closing]) -> list[bool]:
        done = []
        for item, row in self._held([State.UPLOADED], items, [item.entry_id for item in items]):
            if row is not None:
                self._close(row, State.ARCHIVED if row.duplicate_of is None else State.SKIPPED, now)
                row.destination, row.left_in_place = item.destination, item.left_in_place
            done.append(row is not None)
        return done

    def _close(self, row: Row, state: State, now: int) -> None:
        row.state, row.closed_at, row.held, row.grant = state, now, False, None

    def rejected(self, now: int, items: Sequence[tuple[int, DeliveryError]]) -> list[bool]:
        done = []
        for (_, error), row in self._held([State.UPLOADING], items, [entry_id for entry_id, _ in items]):
            if row is not None:
                self._close(row, State.REJECTED, now)
                row.error, row.failed_at, row.left_in_place = error, now, True
            done.append(row is not None)
        return done

    def set_aside(self, now: int, items: Sequence[Closing]) -> list[bool]:
        done = []
        for item, row in self._in([State.REJECTED], items, [item.entry_id for item in items]):
            moves = row is not None and row.destination is None
            if row is not None and moves:
                row.destination, row.left_in_place = item.destination, item.left_in_place
            done.append(moves)
        return done

    def gone(self, now: int, items: Sequence[int]) -> list[bool]:
        done = []
        for _, row in self._held([State.QUEUED, State.UPLOADING], items, items):
            if row is not None:
                self._close(row, State.GONE, now)
            done.append(row is not None)
        return done

    def failed(self, now: int, items: Sequence[Failure]) -> list[None]:
        for item, row in self._held(OPEN_STATES, items, [item.entry_id for item in items]):
            if row is not None:
                self._free(row)
                row.due_at, row.error, row.failed_at = item.due_at, item.error, now
                row.attempts += 1
                row.grant = row.grant if item.keep_grant else None
        return [None] * len(items)

    def put_back(self, now: int, items: Sequence[int]) -> list[None]:
        for _, row in self._held(OPEN_STATES, items, items):
            if row is not None:
                self._free(row)
        return [None] * len(items)

    def _free(self, row: Row) -> None:
        row.held = False
        row.state = State.QUEUED if row.state is State.UPLOADING else row.state

    def restart(self, now: int, longest_wait: int) -> int:
        """What the next daemon does when it opens the ledger; returns how many rows were held."""
        held = [row for row in self.open_rows() if row.held]
        self.works_on = set()
        for row in held:
            self._free(row)
        for row in self.open_rows():
            row.due_at = now if row.due_at > now + longest_wait else row.due_at
        return len(held)

    def give_back_the_rest(self) -> None:
        """What the first claim on a connection does: it gives back what the daemon does not work on."""
        for row in self.open_rows():
            if row.held and row.id not in self.works_on:
                self._free(row)

    def let_go(self, entry_id: int) -> None:
        """`tablefeed retry` has put the file back."""
        row = self.rows.get(entry_id)
        if row is not None and row.state is State.REJECTED:
            row.destination, row.left_in_place = None, False

    def removed(self, now: int, items: Sequence[int]) -> list[None]:
        for _, row in self._in(DELIVERED, items, items):
            if row is not None:
                row.removed_at = now
        return [None] * len(items)

    def vanished(self, now: int, items: Sequence[int]) -> list[None]:
        for _, row in self._in([*DELIVERED, State.REJECTED], items, items):
            if row is not None:
                row.left_in_place = False
        return [None] * len(items)

    def old(self, order: Purge) -> list[Row]:
        """What a purge without limit deletes, the oldest first."""
        found = [
            row
            for row in self.rows.values()
            if row.closed_at is not None and row.closed_at < order.before and not row.left_in_place
            if not (
                row.version.feed in order.kept and row.state in DELIVERED and row.destination and not row.removed_at
            )
        ]
        return sorted(found, key=lambda row: row.closed_at or 0)


def _key(order: Order, row: Row) -> tuple[int, int] | str:
    match order:
        case Order.OLDEST:
            return row.version.mtime_ns, row.id
        case Order.NEWEST:
            return -row.version.mtime_ns, -row.id
        case Order.NAME:
            return row.version.path


def claimed(row: Row) -> Entry:
    """A free row as the claim that takes it gives it."""
    state = State.UPLOADING if row.state is State.QUEUED else row.state
    return replace(row.entry, state=state)
