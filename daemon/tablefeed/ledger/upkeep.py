"""What is changed of closed rows: where their files are by now, and when they are forgotten."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from tablefeed.ledger.changes import change
from tablefeed.ledger.queries import CHUNK
from tablefeed.ledger.schema import datasets, feeds, files, is_closed, is_left, nodes
from tablefeed.model import State


@dataclass(frozen=True, slots=True)
class Purge:
    """Which rows to delete: up to `limit` that closed before a time, in Unix milliseconds."""

    before: int
    limit: int
    kept: tuple[str, ...] = ()
    """Feeds whose archived files are removed one day: until then their rows are needed."""
    places: tuple[str, ...] = ()
    """In whose directories files lie that may be touched here; none: there is no fleet, and all are.

    Rows elsewhere go with those of nodes that are known no more.
    """


def keep_dataset(conn: sa.Connection, now: int, items: Sequence[tuple[str, str, str, str]]) -> list[None]:
    """Keep (base URL, tenant, datatable, dataset) for good."""
    for base_url, tenant_id, datatable_id, dataset_id in items:
        key = {"base_url": base_url, "tenant_id": tenant_id, "datatable_id": datatable_id}
        found = {"dataset_id": dataset_id}
        if not conn.execute(sa.update(datasets).filter_by(**key).values(found)).rowcount:
            conn.execute(insert(datasets).on_conflict_do_nothing(), key | found)
    return [None] * len(items)


_RETRIED = change([State.REJECTED], destination=sa.null(), left_in_place=sa.false())
_REMOVED = change([State.ARCHIVED, State.SKIPPED], "removed_at")
_VANISHED = change([State.ARCHIVED, State.SKIPPED, State.REJECTED], left_in_place=sa.false())


def retried(conn: sa.Connection, now: int, ids: Sequence[int]) -> list[bool]:
    """Let go of rejected files: they lie in their drop directory again, to be found like any other."""
    return _RETRIED.each(conn, [{"b_id": entry_id} for entry_id in ids])


def removed(conn: sa.Connection, now: int, ids: Sequence[int]) -> list[bool]:
    """Record that archived files are gone from the archive."""
    return _REMOVED.each(conn, [{"b_id": entry_id, "removed_at": now} for entry_id in ids])


def vanished(conn: sa.Connection, now: int, ids: Sequence[int]) -> list[bool]:
    """Record that files which were left in their drop directory are gone from there."""
    return _VANISHED.each(conn, [{"b_id": entry_id} for entry_id in ids])


def purge(conn: sa.Connection, now: int, items: Sequence[Purge]) -> list[int]:
    """Delete old rows, except those that are still needed to know a file again.

    A file that still lies where it was dropped would be queued again without its row.
    """
    counts = []
    for item in items:
        to_remove = files.c.feed.in_(item.kept) & files.c.destination.is_not(None) & files.c.removed_at.is_(None)
        delivered = files.c.state.in_([State.ARCHIVED.value, State.SKIPPED.value])
        done = ~(to_remove & delivered)
        doomed = (
            sa.select(files.c.id)
            .where(is_closed, files.c.closed_at < item.before, ~is_left)
            .where((_looked_after(conn, item.places) & done) | _nobodys() if item.places else done)
            .order_by(files.c.closed_at)
            .limit(item.limit)
            .with_for_update(skip_locked=True)  # several nodes may be at it
        )
        ids = conn.execute(doomed).scalars().all()
        for start in range(0, len(ids), CHUNK):
            conn.execute(sa.delete(files).where(files.c.id.in_(ids[start : start + CHUNK])))
        counts.append(len(ids))
    return counts


def _looked_after(conn: sa.Connection, places: Collection[str]) -> sa.ColumnElement[bool]:
    """The rows that lie in these places, but for those of shared feeds that other nodes alone serve: their settings are
    not known here."""
    here, elsewhere = set[str](), set[str]()
    for name, served in conn.execute(sa.select(nodes.c.name, nodes.c.feeds)):
        (here if name in places else elsewhere).update(json.loads(served))
    shared = conn.execute(sa.select(feeds.c.name).where(feeds.c.node == "")).scalars()
    others = [name for name in shared if name in elsewhere and name not in here]
    return files.c.node.in_(places) & ~((files.c.node == "") & files.c.feed.in_(others))


def _nobodys() -> sa.ColumnElement[bool]:
    """The rows of nodes that are known no more, which would be kept for ever: pods have a new name each time."""
    of_known = files.c.node.in_(sa.select(nodes.c.name))
    known = sa.exists().where(feeds.c.node == files.c.node, feeds.c.name == files.c.feed)
    return (files.c.node != "") & ~of_known & ~known
