"""The model beside a real PostgreSQL: the same changes by the same number of clients."""

from dataclasses import dataclass, replace
from math import inf

from scale.cases import world_of
from scale.figures import Figures
from scale.measure import Check
from scale.model import Fleet
from scale.world import Change, Load


@dataclass(frozen=True, slots=True)
class Held:
    """What was measured, and the files a second that the model says of it."""

    check: Check
    model: float


def held_beside(figures: Figures, check: Check) -> Held:
    """Each client is a node with one lot that only changes the ledger.

    pgbench's own CPU is taken from the cores too, and all takes longer where others left less of them than the clients
    can use.
    """
    world = world_of(figures)
    cores = min(check.clients, check.cores)
    slower = cores / min(cores, max(0.1, check.cores - check.others))
    world = replace(
        world,
        cores=cores,
        flush=check.flush_ms / 1e3,
        transaction=(world.transaction + check.client_us / 1e6) * slower,
        row=world.row * slower,
        api_rate=inf,
        api=0.0,
        upload=0.0,
        move=0.0,
        node_cpu=0.0,
        feed_row_share=1.0,
    )
    rows = frozenset({Change.QUEUED, Change.UPLOADED}) if check.shared else frozenset[Change]()
    load = Load(lot=check.files_together, backlog=1, feed_row=rows)
    outcome = Fleet(world, load, check.clients).run(
        warm_files=20 * check.clients * check.files_together, files=400 * check.clients * check.files_together
    )
    return Held(check, float(f"{outcome.files:.3g}"))
