"""What `make scale ARGS=--measure` runs on a real PostgreSQL is what it says: the ledger's changes of whole files."""

import tempfile
from pathlib import Path

import pytest

from scale.cases import CHANGES
from scale.cluster import REMEDY, Cluster, binaries, cluster
from scale.measure import script, tables

PROGRAMS = binaries()
COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres';"

BESIDES = 40
"""More transactions than the questions of this test, pgbench's own and autovacuum's are together."""


def commits(server: Cluster) -> int:
    """Transactions until now; processes tell theirs when they end."""
    return int(server.sql(COMMITS))


@pytest.mark.skipif(PROGRAMS is None, reason=REMEDY)
def test_the_scripts_lead_files_through_all_changes() -> None:
    """Each archives its files by five commits in the ledger's own tables; CPU and memory are seen, nothing is left."""
    assert PROGRAMS is not None
    # Not in a directory of the test's: PostgreSQL runs as a user who cannot get there.
    with cluster(PROGRAMS, Path(tempfile.gettempdir())) as server:
        server.sql(tables())
        before = commits(server)
        run = server.bench(script(3, "7"), clients=2, seconds=1)
        made = commits(server) - before
        done = server.sql("SELECT state, feed, count(*), count(grant_url) FROM files GROUP BY 1, 2;")
        seen = server.sql("SELECT name FROM feeds WHERE arrived_at > 0 AND delivered_at > 0;")
    assert done == f"archived|7|{3 * run.scripts}|0"
    assert 0 <= made - CHANGES * run.scripts < BESIDES
    assert seen == "7"
    assert run.cpu > 0
    assert run.connection > 2**20
    assert not server.directory.exists()
