"""What is in the way of this daemon's feeds: as it is shown here, and as the other nodes of its fleet are told."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from tablefeed.gates import Closed, Gates, Place
from tablefeed.links import Unusable
from tablefeed.nodes import NodeTrouble
from tablefeed.status import Kind, Trouble

_KINDS = {Place.DELIVERY: Kind.DELIVERY, Place.ARCHIVE: Kind.ARCHIVE, None: Kind.SERVER}
_WORST_FIRST = list(Kind)


class Obstacles:
    """Directories that cannot be read, and closed gates."""

    def __init__(self, unusable: Mapping[str, Unusable], gates: Gates, on_wall: Callable[[float], int]) -> None:
        """`unusable`: by feed; `on_wall` gives moments of the clock of the gates in Unix milliseconds."""
        self._unusable = unusable
        self._gates = gates
        self._on_wall = on_wall

    def of(self, feed: str, closed: Iterable[Closed]) -> Iterator[Trouble]:
        """What is in the way of a feed; `closed`: all gates that are closed now."""
        trouble = self._unusable.get(feed)
        if trouble:
            yield Trouble(Kind.DIRECTORY, trouble.reason, trouble.remedy, trouble.since)
        for gate in closed:
            if feed in gate.feeds:
                yield Trouble(
                    _KINDS[gate.place],
                    gate.reason,
                    gate.remedy or ("" if gate.place else "Nothing: its files are sent when it works again"),
                    self._on_wall(gate.since),
                    None if gate.next_probe is None else self._on_wall(gate.next_probe),
                )

    def for_others(self, feeds: Iterable[str]) -> list[NodeTrouble]:
        """What other nodes are told of these feeds: what needs somebody most, first."""
        closed = self._gates.closed()
        found = [(feed, trouble) for feed in feeds for trouble in self.of(feed, closed)]
        found.sort(key=lambda it: (_WORST_FIRST.index(it[1].kind), it[0]))
        return [NodeTrouble(feed, it.kind.value, it.reason, it.remedy, it.since) for feed, it in found]
