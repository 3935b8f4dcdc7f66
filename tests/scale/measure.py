"""Measures what a PostgreSQL on this machine takes for the ledger's changes: `make scale ARGS=--measure`.

The statements are the ledger's in kind: the same tables and indexes, the same columns, the same commits. They are run
by pgbench, so that no daemon's CPU is in them.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from scale.cases import CHANGES
from scale.cluster import Cluster, cluster
from scale.world import Change
from tablefeed.ledger.schema import metadata

TOGETHER = 16
"""Files in a commit of a busy node."""
_RUNS = 4
_NODES = 1_000
"""How many `around.sql` makes."""
_HERE = Path(__file__).parent
_CHANGED = (_HERE / "changes.sql").read_text().split("\n\n")
"""The five changes of a file, as pgbench has them; `id` is the variable that holds its number."""
_ARRIVED = "UPDATE feeds SET arrived_at = 1700000002000 WHERE name = :feed AND node = '';\n"
_DELIVERED = "UPDATE feeds SET delivered_at = 1700000002000 WHERE name = :feed AND node = '';\n"
_LIVES = "SELECT name FROM scale_nodes WHERE name = 'node-' || :client_id + 1 AND epoch = 1 FOR SHARE;\n"
_SEEN = "SELECT extract(epoch FROM clock_timestamp()) * 1000, * FROM scale_nodes ORDER BY name;\n"
_READ = """
SELECT DISTINCT feed FROM files WHERE closed_at IS NULL AND due_at > 1800000000000 AND due_at <= 1800000015000;
"""
_BEAT = """
\\set node random(1, 1000)
UPDATE scale_nodes SET seen_at = seen_at + 1 WHERE name = 'node-' || :node::text;
"""


def script(files: int, feed: str) -> str:
    """The five changes of so many files: each change of all of them is one commit, and names the feed's row once."""
    ids = [f"id{n}" for n in range(files)]
    head = f"\\set feed {feed}\n\\set number random(1, 1000000000)\n"
    changes = ["".join(text.format(id=name).strip() + "\n" for name in ids) for text in _CHANGED]
    changes[Change.QUEUED] += _ARRIVED
    changes[Change.CLAIMED] = _LIVES + changes[Change.CLAIMED]
    changes[Change.UPLOADED] += _DELIVERED
    return head + "".join(f"BEGIN;\n{text}COMMIT;\n" for text in changes)


def tables() -> str:
    """The ledger's own tables and indexes, and what the scripts need beside them."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    made: list[Any] = [sa.schema.CreateTable(table) for table in metadata.sorted_tables]
    made += [sa.schema.CreateIndex(index) for table in metadata.sorted_tables for index in sorted_indexes(table)]
    texts = [str(each.compile(dialect=dialect)) for each in made]
    return ";\n".join([*texts, (_HERE / "around.sql").read_text()])


def sorted_indexes(table: sa.Table) -> list[sa.Index]:
    """By name, since a set has no order."""
    return sorted(table.indexes, key=lambda index: str(index.name))


@dataclass(frozen=True, slots=True)
class Check:
    """What this PostgreSQL really did, to be held beside what the model says of the same."""

    clients: int
    files_together: int
    shared: bool
    """All clients' files are of one feed."""
    files: float
    """A second."""
    cores: int
    others: float
    """How many of the cores other programs of the machine took meanwhile."""
    client_us: float
    """CPU of pgbench for a commit: it works on the same cores."""
    flush_ms: float
    """What a commit waits for this machine's disk."""


def measured(programs: Path, scratch: Path, seconds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """New values of figures with their sources, updates of one row, and the checks: some forty times `seconds`."""
    with cluster(programs, scratch) as server:
        server.sql(tables())
        version = server.sql("SHOW server_version;").split()[0]
        source = (
            f"measured by `make scale ARGS=--measure` on {datetime.now(UTC):%Y-%m-%d}: PostgreSQL {version} on"
            f" {os.cpu_count()} cores, over a Unix socket"
        )
        values = _costs(server, seconds, tell)
        figures = {name: {"value": _rounded(value), "source": source} for name, value in values.items()}
        updates, flush_ms = _updates(server, seconds, tell)
        checks = [asdict(check) for check in _checks(server, seconds, flush_ms, tell)]
        return {"figures": figures, "updates": updates, "checks": checks}


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _costs(server: Cluster, seconds: int, tell: Callable[[str], None]) -> dict[str, float]:
    """CPU, log and room of a file."""
    tell("The changes of a file alone, and of sixteen together")
    alone, together = script(1, ":client_id"), script(TOGETHER, ":client_id")
    # The first time makes room that vacuum gives back, as in a ledger that is not new.
    server.bench(alone, clients=4, seconds=seconds)
    server.sql("VACUUM;")
    server.sql("CHECKPOINT;")
    begun = _log_position(server)
    one = server.bench(alone, clients=4, seconds=seconds)
    wal = (_log_position(server) - begun) / one.scripts
    server.sql("VACUUM;")
    size = int(server.sql("SELECT pg_total_relation_size('files');")) / int(server.sql("SELECT count(*) FROM files;"))
    costs = (_least_cpu(server, text, seconds) for text in (alone, together, _READ, _SEEN))
    one_by_one, many, read, seen = (cost * 1e6 for cost in costs)
    commit_of_one, commit_of_many = one_by_one / CHANGES, many / CHANGES
    row = (commit_of_many - commit_of_one) / (TOGETHER - 1)
    return {
        "wal_bytes_per_file": wal,
        "ledger_bytes_per_file": size,
        "cpu_us_per_transaction": commit_of_one - row,
        "cpu_us_per_row": row,
        "cpu_us_per_read": read,
        "cpu_us_per_node_seen": seen / _NODES,
        "connection_mib": one.connection / 2**20,
    }


def _least_cpu(server: Cluster, text: str, seconds: int) -> float:
    """PostgreSQL's CPU seconds for a script: the least of some runs, since other programs only ever add to it."""
    runs = [server.bench(text, clients=4, seconds=seconds) for _ in range(_RUNS)]
    return min(run.cpu / run.scripts for run in runs)


def _updates(server: Cluster, seconds: int, tell: Callable[[str], None]) -> tuple[list[dict[str, float]], float]:
    """What a transaction that updates one row takes, by the number of connections; a commit's wait for the disk."""
    tell("Updates of one row, and what a commit waits for the disk")
    durable = {clients: server.bench(_BEAT, clients=clients, seconds=seconds) for clients in (1, 4, 16)}
    not_durable = server.bench(_BEAT, clients=1, seconds=seconds, durable=False)
    updates = [
        {
            "clients": clients,
            "ms": _rounded(run.latency * 1e3),
            "per_second": _rounded(run.per_second),
            "cpu_us": _rounded(run.cpu / run.scripts * 1e6),
        }
        for clients, run in durable.items()
    ]
    return updates, _rounded(max(0.0, durable[1].latency - not_durable.latency) * 1e3)


def _checks(server: Cluster, seconds: int, flush_ms: float, tell: Callable[[str], None]) -> list[Check]:
    found = []
    for files in (1, TOGETHER):
        for shared in (False, True):
            for clients in (1, 4, 16):
                tell(f"{clients} clients, {files} files together, {'one feed' if shared else 'a feed each'}")
                text = script(files, "0" if shared else ":client_id")
                spent, busy = -_children_cpu(), -_machine_cpu()
                run = server.bench(text, clients=clients, seconds=seconds)
                spent, busy = spent + _children_cpu(), busy + _machine_cpu()
                found.append(
                    Check(
                        clients=clients,
                        files_together=files,
                        shared=shared,
                        files=_rounded(run.per_second * files),
                        cores=os.cpu_count() or 1,
                        others=round(max(0.0, (busy - run.cpu - spent) / run.seconds), 2),
                        client_us=_rounded(spent / run.scripts / CHANGES * 1e6),
                        flush_ms=flush_ms,
                    )
                )
    return found


def _children_cpu() -> float:
    """Seconds of CPU of programs that were started here and have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _machine_cpu() -> float:
    """Seconds that all cores have been busy, or that the host gave to others; without what they waited for disks."""
    user, nice, system, _, _, hard, soft, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + hard + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _log_position(server: Cluster) -> int:
    """Bytes of WAL that were ever written."""
    return int(server.sql("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint;"))
