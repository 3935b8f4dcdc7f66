"""Faults that the ledger's database has no part in are tried with a file as well as with PostgreSQL."""

import pytest

from support.daemon import Site

BOTH = {
    *("test_archive_trouble", "test_crash_race", "test_crash_steps", "test_files_changing", "test_outages_gates"),
    *("test_outages_of_servers", "test_servers", "test_servers_calls", "test_watching"),
}
"""The modules whose tests run once with each. The rest looks into the ledger's file, or has no daemon."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of those modules twice."""
    if metafunc.module.__name__.rpartition(".")[2] in BOTH and "site" not in metafunc.fixturenames:
        metafunc.fixturenames.append("_engine")
        metafunc.parametrize("_engine", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def _engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sites have their ledgers."""
    if request.param == "postgres":
        monkeypatch.setattr(Site, "database", request.getfixturevalue("postgres").database)
