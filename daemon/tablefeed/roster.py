"""The feeds that are served now, and how they are exchanged while the daemon runs."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tablefeed.dispatch import Dispatcher
from tablefeed.gates import Gates
from tablefeed.model import Feed


@dataclass(frozen=True, slots=True)
class Changes:
    """How one set of feeds differs from another, by name."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def compare(now: Mapping[str, Feed], then: Sequence[Feed]) -> Changes:
    """What has to be done to serve `then` instead of `now`."""
    names = {feed.name for feed in then}
    return Changes(
        added=tuple(feed.name for feed in then if feed.name not in now),
        changed=tuple(feed.name for feed in then if feed.name in now and now[feed.name] != feed),
        removed=tuple(name for name in now if name not in names),
    )


class Runner(Protocol):
    """What takes the files of one feed in."""

    async def run(self) -> None:
        """Until cancelled."""

    @property
    def takes(self) -> Callable[[str], bool]:
        """Whether a path, relative to the feed's directory, is that of one of its files."""


R = TypeVar("R", bound=Runner)


class Roster(Generic[R]):
    """Starts and stops the intakes of feeds. All rooms share its `feeds` and see each change at once."""

    def __init__(
        self,
        feeds: dict[str, Feed],
        intakes: dict[str, R],
        make_intake: Callable[[Feed], R],
        dispatcher: Dispatcher,
        gates: Gates,
        *,
        changed: asyncio.Event,
        forget: Callable[[str], None],
    ) -> None:
        """`feeds` and `intakes` are kept up to date. `changed` is set whenever a file has ended.

        `forget` is called with the name of a feed that is not served any more, or not as before.
        """
        self._feeds = feeds
        self._intakes = intakes
        self._make_intake = make_intake
        self._dispatcher = dispatcher
        self._gates = gates
        self._changed = changed
        self._forget = forget
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    def start(self, group: asyncio.TaskGroup) -> None:
        """Serve all feeds, with tasks in `group`."""
        self._group = group
        for feed in self._feeds.values():
            self._serve(feed, after=())

    def stop(self) -> None:
        """Take no more files in."""
        for task in self._tasks.values():
            task.cancel()

    def ended(self) -> list[str]:
        """Feeds whose runner has ended without having been told to."""
        return [name for name, task in self._tasks.items() if task.done()]

    async def change(self, feeds: Sequence[Feed]) -> Changes:
        """Serve these feeds from now on. What is being sent is finished as it was begun.

        A feed that takes over files of another, or what it sends from another directory, begins when those that are
        under way have ended, so that none is sent twice.
        """
        changes = compare(self._feeds, feeds)
        await self._end((*changes.removed, *changes.changed))
        for name in changes.removed:
            del self._feeds[name]
        for feed in [feed for feed in feeds if feed.name in {*changes.added, *changes.changed}]:
            self._feeds[feed.name] = feed
            self._gates.relate(feed.name, feed.api.origin)
            self._intakes[feed.name] = self._make_intake(feed)
            self._serve(feed, after=self._taken_over(feed))
            self._dispatcher.wake(feed.name)
        self._changed.set()
        return changes

    def _taken_over(self, feed: Feed) -> list[int]:
        """What is under way and would look new to the feed, by the ids of the rows."""
        takes = self._intakes[feed.name].takes
        return [
            entry_id
            for entry_id, (version, directory) in self._dispatcher.under_way.items()
            if directory is not None
            and (version.feed, directory) != (feed.name, feed.directory)
            and (path := directory / version.path).is_relative_to(feed.directory)
            and takes(str(path.relative_to(feed.directory)))
        ]

    def _serve(self, feed: Feed, after: Collection[int]) -> None:
        if self._group is None:
            raise AssertionError("feeds are served after `start`")
        if after:  # what it has queued itself, in an earlier life, may be what another sends now
            self._dispatcher.held_back.add(feed.name)
        running = self._run(feed.name, self._intakes[feed.name], after)
        self._tasks[feed.name] = self._group.create_task(running, name=f"intake {feed.name}")

    async def _run(self, name: str, intake: R, after: Collection[int]) -> None:
        while not self._dispatcher.under_way.keys().isdisjoint(after):
            self._changed.clear()
            await self._changed.wait()
        if after:
            self._dispatcher.held_back.discard(name)
            self._dispatcher.wake(name)
        await intake.run()

    async def _end(self, names: Collection[str]) -> None:
        tasks = [self._tasks.pop(name) for name in names]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for name in names:
            del self._intakes[name]
            self._dispatcher.held_back.discard(name)
            self._gates.forget(name)
            self._forget(name)
