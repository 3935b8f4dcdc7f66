"""The nodes of a fleet as people and programs are shown them: plain values. Times are Unix milliseconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeTrouble:
    """One thing that keeps a feed on one node from what it should do, as that node told of it."""

    feed: str
    kind: str
    """A `status.Kind`; nodes of other versions may have others."""
    reason: str
    """Empty where that would be too much to tell."""
    remedy: str
    """What to do about it; empty where it mends itself."""
    since: int | None = None
    """On the clock of that node."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One daemon of the fleet. Times are on the database's clock."""

    name: str
    here: bool
    """Whether it is the one that is asked."""
    living: bool
    """Whether it gave a sign of life within its lease."""
    started_at: int
    seen_at: int
    """Its last sign of life."""
    version: str
    feeds: tuple[str, ...] = ()
    uploading: int = 0
    """Files that it has claimed: they get their URL, wait for a slot, or are being sent."""
    archiving: int = 0
    """Delivered files that it moves now."""
    waiting: int = 0
    """Open files in its own directories, which no other node can deliver."""
    troubles: tuple[NodeTrouble, ...] = ()
    """What it told of in its last sign of life; nothing once it is over."""
    more_troubles: int = 0
    """How many it has besides."""


@dataclass(frozen=True, slots=True)
class HeldStatus:
    """A file that another node works on."""

    id: int
    node: str
    feed: str
    path: str
    size: int
    state: str
    queued_at: int


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """The daemons that share a ledger; without a fleet all is empty."""

    now: int | None = None
    """The database's clock when it was asked; None: there is no fleet."""
    living: int = 0
    over: int = 0
    """Nodes that gave no sign of life for their lease, or ended, within a day or with files that wait for them."""
    nodes: tuple[NodeStatus, ...] = ()
    """The first of both: those that are missed, the one that is asked, those in trouble, then the others; by name."""
    held: tuple[HeldStatus, ...] = ()
    """Files that other nodes work on, the longest waiting first."""

    @property
    def missed(self) -> tuple[NodeStatus, ...]:
        """Nodes that are over and for which files wait."""
        return tuple(node for node in self.nodes if not node.living and node.waiting)


NO_FLEET = FleetStatus()
"""The daemon has its ledger for itself."""
