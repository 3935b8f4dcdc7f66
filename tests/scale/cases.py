"""Which fleets are looked at, and how much of each limit they use."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import inf

from scale.figures import Figures
from scale.model import Fleet
from scale.world import Change, Load, Outcome, World

SIZES = (1, 3, 10, 100, 1_000, 10_000, 100_000)
QUICK = (1, 3, 10, 100)
"""Those that take a fraction of a second."""
_COUNT = range(1_000_000_000)
_MOST_ON_A_SHARE = 10_000
"""More change nothing but the delay, and would take an hour."""
CHANGES = len(Change)
CONNECTIONS, TABLE, API = "connections", "size of `files`", "the API's rate"
SEEN = "CPU for looking at nodes"
CPU, WAL, NODES, ROW = "PostgreSQL's CPU", "PostgreSQL's WAL", "CPU of the nodes", "the feed's row"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of fleet."""

    name: str
    load: Load
    world: World


@dataclass(frozen=True, slots=True)
class Result:
    """What a case gives with so many nodes."""

    case: str
    nodes: int
    outcome: Outcome


def world_of(figures: Figures) -> World:
    """The figures in the model's units."""
    return World(
        cores=round(figures.postgres_cores),
        transaction=figures.cpu_us_per_transaction / 1e6,
        row=figures.cpu_us_per_row / 1e6,
        read=figures.cpu_us_per_read / 1e6,
        seen=figures.cpu_us_per_node_seen / 1e6,
        flush=figures.flush_ms / 1e3,
        wal_rate=figures.postgres_wal_mb_per_second * 1e6,
        wal_of_row=figures.wal_bytes_per_file / CHANGES,
        api_rate=figures.api_calls_per_second,
        api=figures.api_ms / 1e3,
        upload=figures.upload_ms / 1e3,
        move=figures.move_ms / 1e3,
        node_cpu=figures.node_cpu_ms_per_file / 1e3,
        feed_row_share=figures.feed_row_share,
    )


def lot_of(figures: Figures) -> int:
    """How many files go together when a node is busy: as many as the measured transactions a file say."""
    return max(1, round(figures.transactions_per_file_alone / figures.transactions_per_file_busy))


def cases(figures: Figures) -> dict[str, Case]:
    """Nodes that only live; plants that deliver in the night; one share's backlog; the same on shares of their own."""
    world = world_of(figures)
    other = figures.idle_transactions_per_second - figures.heartbeats_per_second
    idle = Load(
        beat_every=1 / figures.heartbeats_per_second if figures.heartbeats_per_second else 0.0,
        read_every=1 / other if other > 0 else 0.0,
    )
    reads = max(0.0, figures.transactions_per_file_alone - CHANGES)
    night = replace(idle, reads=reads, arrivals=figures.night_files / figures.night_hours / 3600)
    lot = lot_of(figures)
    in_flight = max(1, round(figures.files_in_flight / lot))
    backlog = replace(idle, reads=reads, lot=lot, backlog=in_flight, feed_row=frozenset({Change.UPLOADED}))
    ledger_only = replace(world, api_rate=inf)
    return {
        case.name: case
        for case in (
            Case("idle", idle, world),
            Case("night", night, world),
            Case("share", backlog, world),
            Case("ledger", replace(backlog, feed_row=frozenset()), ledger_only),
        )
    }


def run(case: Case, nodes: int) -> Result:
    """Let it run until it is settled, and then for as long as its figures need."""
    load = case.load
    fleet = Fleet(case.world, load, nodes)
    if not load.arrivals and not load.backlog:
        seconds = max(load.beat_every, load.read_every, 1.0)
        return Result(case.name, nodes, fleet.run(seconds=seconds))
    if load.arrivals:
        return Result(case.name, nodes, fleet.run(warm_files=200 + nodes // 2, files=2_000 + nodes))
    # What was in flight at the beginning is not counted.
    in_flight = nodes * load.backlog * load.lot
    return Result(case.name, nodes, fleet.run(warm_files=in_flight, files=20_000 + in_flight))


def run_all(figures: Figures, sizes: Iterable[int] = SIZES) -> Iterable[Result]:
    """All cases with these sizes, the smallest first, without those that never settle, since they ask for too much."""
    known = cases(figures)
    for nodes in sizes:
        for case in known.values():
            settles = keeps_up(figures, nodes) if case.load.arrivals else nodes <= _MOST_ON_A_SHARE
            if settles or case.name == "idle":
                yield run(case, nodes)


def keeps_up(figures: Figures, nodes: int) -> bool:
    """Whether so many plants' nights are within what the API, the log and, with full commits, the CPU give."""
    asked = demands(figures, nodes, together=lot_of(figures))
    return all(asked[name] < 1 for name in (API, CPU, WAL))


def use(figures: Figures, result: Result) -> dict[str, float]:
    """Which part of each limit is used; what only grows with the nodes may be more than all of it."""
    outcome = result.outcome
    world = cases(figures)[result.case].world
    used = {
        CONNECTIONS: result.nodes * figures.connections_per_node / figures.postgres_connections,
        CPU: outcome.cpu,
        WAL: outcome.wal / world.wal_rate,
        API: outcome.api / world.api_rate,
    }
    if result.case in {"share", "ledger"}:
        used[NODES] = outcome.node_cpu
    if result.case == "share":
        used[ROW] = outcome.feed_row
    return used


def carries(figures: Figures, together: int) -> dict[str, float]:
    """Files a second of which each of PostgreSQL's limits is full, when so many files share each commit."""
    return {
        CPU: figures.postgres_cores / cpu_of_file(figures, together),
        WAL: figures.postgres_wal_mb_per_second * 1e6 / figures.wal_bytes_per_file,
    }


def cpu_of_file(figures: Figures, together: int = 1) -> float:
    """Seconds of PostgreSQL's CPU for a file, when so many share each commit."""
    world = world_of(figures)
    reads = max(0.0, figures.transactions_per_file_alone - CHANGES)
    return (CHANGES * (world.transaction + together * world.row) + reads * world.read) / together


def demands(figures: Figures, nodes: int, *, together: int = 1) -> dict[str, float]:
    """Which part of each limit so many plants ask for in the night, whether they get it or not."""
    world = world_of(figures)
    rate = nodes * figures.night_files / figures.night_hours / 3600
    beats = nodes * figures.heartbeats_per_second
    others = nodes * max(0.0, figures.idle_transactions_per_second - figures.heartbeats_per_second)
    living = beats * (world.transaction + world.row) + others * world.read
    seen = beats * nodes * world.seen
    history = nodes * figures.night_files * figures.history_days * figures.ledger_bytes_per_file
    return {
        CONNECTIONS: nodes * figures.connections_per_node / figures.postgres_connections,
        TABLE: history / figures.postgres_table_gb / 1e9,
        SEEN: seen / world.cores,
        CPU: (rate * cpu_of_file(figures, together) + living + seen) / world.cores,
        API: rate / world.api_rate,
        WAL: (rate * figures.wal_bytes_per_file + beats * world.wal_of_row) / world.wal_rate,
    }


def borders(figures: Figures) -> dict[str, int]:
    """The most nodes that each limit lets in."""
    names = demands(figures, 1)
    return {name: bisect_right(_COUNT, 1.0, key=lambda nodes: demands(figures, nodes)[name]) - 1 for name in names}


def told(results: Iterable[Result]) -> list[Mapping[str, object]]:
    """As they stand in the file: rounded, so that it can be read and does not change with the machine."""
    return [
        {"case": result.case, "nodes": result.nodes}
        | {name: float(f"{value:.6g}") for name, value in asdict(result.outcome).items()}
        for result in results
    ]


def heard(kept: Iterable[Mapping[str, object]]) -> list[Result]:
    """The way back from `told`."""
    return [
        Result(
            str(one["case"]),
            int(str(one["nodes"])),
            Outcome(**{name: float(str(value)) for name, value in one.items() if name not in {"case", "nodes"}}),
        )
        for one in kept
    ]
