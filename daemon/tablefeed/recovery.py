"""Refused files go back to where they were dropped, so that they are tried again: by the command, and over HTTP."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tablefeed.archive.moves import Disk
from tablefeed.archive.restore import restore
from tablefeed.errors import NotRestored
from tablefeed.history import is_refused
from tablefeed.ledger.records import Record, Records, Search, opened
from tablefeed.model import Feed, State, printable
from tablefeed.threads import Threads

MOST = 500
"""Files that one request puts back."""
PATIENCE = 5.0
"""Seconds after which a request leaves the rest to the next one."""
_HUNG = 3
"""Requests that a share which hangs may hold up before others wait for them."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What became of one refused file."""

    id: int
    feed: str
    path: str
    problem: str = ""
    """Why it was not put back, in words; empty: it was."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which refused files are wanted: those of `ids`; where there are none, those of `feed`, None: all."""

    ids: Sequence[int] = ()
    feed: str | None = None
    after: int = 0
    """Only ids above this one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request has done."""

    files: list[Returned]
    next: int | None
    """After which id to go on; None: that was all."""


def chosen(records: Records, choice: Choice, limit: int | None = None) -> tuple[list[Record], list[Returned]]:
    """The first files that are meant, in the order of their ids, and a problem for each id that is none's.

    Blocks; raises LedgerUnusable.
    """
    if not choice.ids:
        return records.refused(choice.feed, after=choice.after, limit=limit), []
    ids = sorted({entry_id for entry_id in choice.ids if entry_id > choice.after})[:limit]
    found = records.find(Search(ids=ids))
    strangers = sorted(set(ids) - {record.id for record in found})
    return found, [Returned(entry_id, "", "", "there is no such file in the ledger") for entry_id in strangers]


def put_back(
    records: Records, feeds: Mapping[str, Feed], found: Iterable[Record], node: str = ""
) -> Iterator[Returned]:
    """Move them back one by one, and say of each what became of it. Blocks; raises LedgerUnusable.

    `node` is what this machine is called in the fleet: what lies in the directories of others is theirs to move.
    """
    for record in found:
        yield Returned(record.id, record.feed, record.path, _put_back(records, feeds, record, node))


def _put_back(records: Records, feeds: Mapping[str, Feed], record: Record, node: str) -> str:
    name = f"{record.feed}/{printable(record.path)}"
    if record.state != State.REJECTED:
        return f"{name} is {record.state}; only rejected files can be tried again"
    if not is_refused(record):
        return f"{name} has been put back before"
    if record.node not in ("", node):
        return f"{name} lies on node {record.node}: run `tablefeed retry {record.id}` there, or use that node's page"
    if record.feed not in feeds:
        if node:
            return f"its feed {record.feed} is not served here: run `tablefeed retry {record.id}` on a node that does"
        return f"its feed {record.feed} is not configured any more: add it again, or move the file by hand"
    destination = Path(record.destination) if record.destination else None
    try:
        restore(feeds[record.feed], record.id, record.version, destination, Disk())
    except NotRestored as error:
        return str(error)
    records.let_go(record.id)
    return ""


class Recovery:
    """Puts files back while the daemon runs: one request at a time, in a thread, and a bounded number of files each."""

    def __init__(self, url: str, feeds: Mapping[str, Feed], clock: Callable[[], float], node: str = "") -> None:
        """`url` is the ledger's; `feeds` are those served now; `clock` gives seconds that only grow.

        `node` is what this daemon is called in its fleet; empty: there is none.
        """
        self._url = url
        self._feeds = feeds
        self._clock = clock
        self._node = node
        self._turn = asyncio.Lock()
        self._threads = Threads(_HUNG + 1, "retry")

    async def retry(self, choice: Choice) -> Outcome:
        """Put back what is meant, at most MOST files. Raises LedgerUnusable.

        When the caller is cancelled, it ends after the file at hand.
        """
        ended = threading.Event()
        async with self._turn:
            try:
                return await self._threads.call(self._retry, choice, dict(self._feeds), ended)
            finally:
                ended.set()

    def _retry(self, choice: Choice, feeds: Mapping[str, Feed], ended: threading.Event) -> Outcome:
        until = self._clock() + PATIENCE
        with opened(self._url) as records:
            found, done = chosen(records, choice, MOST + 1)
            for returned in put_back(records, feeds, found[:MOST], self._node):
                done.append(returned)
                if ended.is_set() or (self._clock() >= until and returned.id != found[-1].id):
                    return Outcome(done, returned.id)
        return Outcome(done, found[MOST - 1].id if len(found) > MOST else None)
