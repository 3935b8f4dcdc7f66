"""The files of one feed that are not whole yet: bounded, since whatever does not fit is found by the next scan."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tablefeed.model import FileVersion
from tablefeed.readiness import History, Wait


@dataclass(frozen=True, slots=True)
class _Item:
    history: History | None
    wait: Wait
    scan: int
    version: FileVersion | None


class Pending:
    """Waiting files by path. Those with a time and those without fill half of the room each, at most."""

    def __init__(self, limit: int) -> None:
        """`limit`: how many files fit."""
        self._half = limit // 2
        self._timed: dict[str, _Item] = {}
        self._untimed: dict[str, _Item] = {}
        self._overflowed = False

    @property
    def is_complete(self) -> bool:
        """Whether all files that wait have found room."""
        return not self._overflowed

    def __len__(self) -> int:
        """How many files wait here."""
        return len(self._timed) + len(self._untimed)

    def put(
        self, path: str, history: History | None, wait: Wait, scan: int, version: FileVersion | None = None
    ) -> None:
        """Let a file wait, in place of what it waited for before. `scan` is the number of the last scan."""
        version = version or self._version(path)
        self.drop(path)
        room = self._untimed if wait.until is None else self._timed
        if len(room) < self._half:
            room[path] = _Item(history, wait, scan, version)
        else:
            self._overflowed = True

    def drop(self, path: str) -> None:
        """Forget a file."""
        self._timed.pop(path, None)
        self._untimed.pop(path, None)

    def history(self, path: str) -> History | None:
        """Since when a waiting file has looked as it does."""
        item = self._timed.get(path) or self._untimed.get(path)
        return item.history if item else None

    def versions(self) -> Iterator[tuple[FileVersion, Wait]]:
        """How the waiting files looked last, and what each waits for."""
        for items in (self._timed, self._untimed):
            yield from ((item.version, item.wait) for item in items.values() if item.version is not None)

    def _version(self, path: str) -> FileVersion | None:
        item = self._timed.get(path) or self._untimed.get(path)
        return item.version if item else None

    def due_at(self, path: str) -> float | None:
        """When a file is to be looked at again."""
        item = self._timed.get(path)
        return item.wait.until if item else None

    def due(self, now: float, limit: int) -> list[str]:
        """Up to `limit` files whose time has come."""
        found = [path for path, item in self._timed.items() if item.wait.until is not None and item.wait.until <= now]
        return found[:limit]

    def next_due(self) -> float | None:
        """When the first of all is to be looked at again."""
        return min((item.wait.until for item in self._timed.values() if item.wait.until is not None), default=None)

    def expire(self, scan: int, now: float) -> None:
        """Make due what a complete scan has not come by: it has probably vanished."""
        for path, item in [*self._timed.items(), *self._untimed.items()]:
            if item.scan < scan:
                self.drop(path)
                self._timed[path] = replace(item, wait=replace(item.wait, until=now))

    def has_room_again(self) -> bool:
        """Whether files did not fit, and by now would; true once."""
        if self._overflowed and len(self._timed) <= self._half // 2:
            self._overflowed = False
            return True
        return False

    def waits(self) -> Mapping[str, Wait]:
        """What each file waits for."""
        return {path: item.wait for path, item in (self._timed | self._untimed).items()}
