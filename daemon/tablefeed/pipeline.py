"""The story of one file, from its claim to the archive, in order."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never
from urllib.parse import urlsplit

from tablefeed.archive import Archiver
from tablefeed.duplicates import Contents
from tablefeed.errors import (
    Busy,
    DeliveryError,
    DiskTrouble,
    FeedBlocked,
    GrantExpired,
    LeaseLost,
    Transient,
)
from tablefeed.gates import Place
from tablefeed.ledger import Closing, Failure, Ledger
from tablefeed.model import Duplicates, Entry, Feed, FileVersion, Grant, Receipt, State
from tablefeed.notices import Notices
from tablefeed.outcomes import Outcomes
from tablefeed.presign import Presigner
from tablefeed.refusals import Refusals
from tablefeed.retry import (
    MOST_GRANTS,
    Again,
    Decision,
    LeaveToOthers,
    LookAgain,
    Pause,
    Regrant,
    SetAside,
    backoff,
    decide,
)
from tablefeed.slots import Draining, FairSlots, Slot
from tablefeed.tries import Tries
from tablefeed.upload import Digest, Progress, Uploader

LONGEST_LOOK = 30.0
"""Seconds after which a file that is open for writing again is looked at at the latest."""
_AWAY = "Mount it; other nodes that have it go on with its files"


@dataclass(frozen=True, slots=True)
class Ports:
    """What the pipeline tells to others."""

    look: Callable[[str, str], None]
    """(feed, path): the path may hold something new."""
    due: Callable[[int], None]
    """A row becomes due at this time, in Unix milliseconds."""
    still_there: Callable[[Feed, FileVersion], Awaitable[bool]]
    """Whether the path still holds this version. Raises DiskTrouble where that cannot be told."""


class Pipeline:
    """Delivers entries. `deliver` raises only what ends the daemon."""

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        ledger: Ledger,
        presigner: Presigner,
        uploader: Uploader,
        contents: Contents,
        archivers: Callable[[str], Archiver],
        slots: FairSlots,
        outcomes: Outcomes,
        ports: Ports,
        notices: Notices,
        refusals: Refusals,
        *,
        wall: Callable[[], float],
        random: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        """`archivers` gives a feed's own, so that a share that hangs holds up its feed alone.

        `wall` gives Unix seconds, `random` [0, 1), `steady` seconds that only grow."""
        self._steady = steady
        self._feeds = feeds
        self._ledger = ledger
        self._presigner = presigner
        self._uploader = uploader
        self._contents = contents
        self._archivers = archivers
        self._slots = slots
        self._outcomes = outcomes
        self._ports = ports
        self._notices = notices
        self._refusals = refusals
        self._wall = wall
        self._random = random
        self._tries = Tries()
        self.in_flight: dict[int, tuple[Entry, Progress]] = {}
        """Uploads that run now, by the id of their entry."""
        self.delivered = 0
        """Files delivered so far."""
        self.progressed_at = steady()
        """When a file was delivered or archived last, in seconds."""

    async def deliver(self, entry: Entry) -> None:
        """Send the file unless that is done, then archive it; any failure is decided on and recorded."""
        feed = self._feeds.get(entry.version.feed)
        if feed is None:
            await self._ledger.put_back(entry.id)
            return
        try:
            if entry.state is State.UPLOADING:
                entry = await self._deliver(feed, entry)
            await self._archive(feed, entry)
        except Draining:
            return
        except DeliveryError as error:
            await self._fail(feed, entry, error)
        finally:
            self._ledger.give_up(entry.id)

    def _leave(self, feed: Feed, entry: Entry, error: DeliveryError) -> None:
        self._tries.closed(entry)
        self._outcomes.left_to_others(feed, entry, error)

    async def _deliver(self, feed: Feed, entry: Entry) -> Entry:
        """Bring the content to the store, unless it is there from an earlier file and duplicates are to be skipped."""
        async with self._contents.compared(feed, entry.version) as earlier:
            if earlier is not None and earlier.receipt is not None:
                return await self._skip(feed, entry, earlier, earlier.receipt)
            receipt = await self._send(feed, entry)
            notice = self._notices.delivered(feed, entry.version, receipt)
            if not await self._ledger.uploaded(entry.id, receipt, target=feed.target, notice=notice):
                raise LeaseLost(entry.version.path)
        self._tries.delivered(entry)
        self.delivered += 1
        self.progressed_at = self._steady()
        self._outcomes.delivered(feed, entry, receipt)
        return replace(entry, state=State.UPLOADED, receipt=receipt)

    async def _skip(self, feed: Feed, entry: Entry, earlier: Entry, proof: Receipt) -> Entry:
        now = self._in(0)
        receipt = replace(proof, started_at=now, finished_at=now)
        if not await self._ledger.uploaded(entry.id, receipt, target=feed.target, duplicate_of=earlier.id):
            raise LeaseLost(entry.version.path)
        self._outcomes.skipped(feed, entry, earlier)
        return replace(entry, state=State.UPLOADED, receipt=receipt, duplicate_of=earlier.id)

    async def _send(self, feed: Feed, entry: Entry) -> Receipt:
        tries = 0
        while True:
            tries += 1
            try:
                entry = await self._granted(feed, entry, tries)
                async with self._slots.slot(feed.name, _store(entry.grant), entry.version.size) as slot:
                    await self._confirmed(entry)
                    # The grant may have grown old while this file waited for its slot.
                    entry = await self._granted(feed, entry, tries)
                    return await self._put(feed, entry, slot)
            except GrantExpired as error:
                if not isinstance(self._decide(entry, error, tries), Regrant):
                    raise
                self._outcomes.grant_refused(feed, entry, error)
                entry = replace(entry, grant=None)

    async def _granted(self, feed: Feed, entry: Entry, tries: int) -> Entry:
        began = self._steady()
        granted = await self._presigner.with_grant(feed, entry)
        if granted.grant is not entry.grant:
            refreshed = entry.grant is not None or tries > 1
            self._outcomes.granted(feed, self._steady() - began, refreshed=refreshed)
            self._tries.granted(entry)
        return granted

    async def _put(self, feed: Feed, entry: Entry, slot: Slot) -> Receipt:
        if entry.grant is None:
            raise AssertionError("an upload needs a grant")
        progress = Progress(entry.version.size, self._steady(), comes=slot.comes)
        self.in_flight[entry.id] = (entry, progress)
        self._outcomes.sending(feed, entry)
        is_first = self._tries.sending(entry)
        try:
            receipt = await self._uploader.upload(feed.directory, entry.version, entry.grant, progress, _digests(feed))
        except Transient as error:
            if isinstance(error, Busy) and error.wants_fewer:
                slot.refused()
            if is_first and not error.ambiguous:
                self._tries.granted(entry)
            raise
        finally:
            del self.in_flight[entry.id]
        slot.answered(progress.latency)
        return receipt

    async def _archive(self, feed: Feed, entry: Entry) -> None:
        if entry.receipt is None:
            raise AssertionError("only what has a receipt is archived")
        began = self._steady()
        await self._confirmed(entry)
        moved = await self._archivers(feed.name).move_delivered(
            feed, entry.id, entry.version, entry.receipt.finished_at, entry.receipt.md5
        )
        await self._ledger.archived(Closing(entry.id, moved.destination, moved.left_in_place))
        self.progressed_at = self._steady()
        self._outcomes.archived(feed, entry, moved.destination, self.progressed_at - began)
        if moved.stranger:
            self._ports.look(feed.name, entry.version.path)

    async def _confirmed(self, entry: Entry) -> None:
        """Nothing is sent or moved while another node may have taken over. Raises LeaseLost where one has."""
        if not await self._ledger.confirm(entry.id):
            raise LeaseLost(entry.version.path)

    def _decide(self, entry: Entry, error: DeliveryError, grants: int) -> Decision:
        return decide(
            error,
            path=entry.version.path,
            attempts=entry.attempts,
            refusals=self._tries.refusals(entry),
            grants=grants,
            feed_works=self._tries.feed_works(entry),
            random=self._random,
            untouched=self._tries.is_untouched(entry),
        )

    async def _fail(self, feed: Feed, entry: Entry, error: DeliveryError) -> None:
        decision = self._decide(entry, error, MOST_GRANTS)
        match decision:
            case Again():
                self._outcomes.delayed(feed, entry, error, decision.delay)
                await self._put_back(entry, error, decision.delay, keep_grant=decision.keep_grant)
            case Pause():
                if decision.error.maybe_file:
                    self._tries.refused(entry)
                place = Place.ARCHIVE if entry.state is State.UPLOADED else Place.DELIVERY
                self._outcomes.blocked(feed, entry, place, decision.error)
                # The grant itself may be what is wrong, and a refused one has made no object.
                await self._put_back(entry, decision.error, decision.delay, keep_grant=False)
            case LookAgain():
                await self._look_again(feed, entry, error)
            case SetAside():
                self._tries.closed(entry)
                try:
                    await self._refusals.claimed(feed, entry, decision.error)
                except LeaseLost as lost:
                    self._leave(feed, entry, lost)
            case LeaveToOthers():
                self._leave(feed, entry, error)
            case Regrant():
                raise AssertionError("new grants are fetched before a try ends")
            case _:
                assert_never(decision)

    async def _put_back(self, entry: Entry, error: DeliveryError, delay: float, *, keep_grant: bool) -> None:
        self._tries.failed(entry)
        self._outcomes.failed(entry, error)
        due_at = self._in(delay)
        await self._ledger.failed(Failure(entry.id, error, due_at, keep_grant=keep_grant))
        self._ports.due(due_at)

    def _in(self, seconds: float) -> int:
        return round((self._wall() + seconds) * 1000)

    async def _look_again(self, feed: Feed, entry: Entry, error: DeliveryError) -> None:
        self._outcomes.changed(feed, entry, error)
        try:
            unchanged = await self._ports.still_there(feed, entry.version)
        except DiskTrouble as trouble:
            delay = backoff(entry.attempts + 1, self._random)
            if feed.shared:
                # The share is away here alone, perhaps: what this node holds in vain nobody else can send.
                self._outcomes.blocked(feed, entry, Place.DELIVERY, FeedBlocked(str(trouble), _AWAY))
            else:
                self._outcomes.delayed(feed, entry, trouble, delay)
            await self._put_back(entry, trouble, delay, keep_grant=True)
            return
        if unchanged:
            # The very version still, perhaps opened for writing or touched: the same object is overwritten.
            delay = min(LONGEST_LOOK, feed.settle + 2.0 ** min(entry.attempts, 10))
            await self._put_back(entry, error, delay, keep_grant=True)
            return
        self._tries.closed(entry)
        await self._ledger.gone(entry.id)
        self._outcomes.vanished(feed, entry)
        self._ports.look(feed.name, entry.version.path)


def _digests(feed: Feed) -> tuple[Digest, ...]:
    """What must be known of a feed's files for its own sake."""
    return (Digest.MD5,) if feed.duplicates is Duplicates.SKIP else ()


def _store(grant: Grant | None) -> str:
    """Where a grant leads to: scheme and host alone. Whether the URL is one at all is the uploader's question."""
    try:
        parts = urlsplit(grant.url if grant else "")
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
