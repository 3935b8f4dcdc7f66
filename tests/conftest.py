"""What holds for all tests, and what most tests of the whole daemon begin with."""

import os
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings

from support import engine as engines
from support import postgres as server
from support.alone import alone, beside_others
from support.daemon import KEY, Site
from support.postgres import Postgres, serving_postgres
from tablefeed.lease import ignore_lease_breaks
from tablefeed.sandbox.server import RunningSandbox, SandboxSettings, running

ignore_lease_breaks()
settings.register_profile("tests", settings.default, deadline=None)  # it would measure how busy the machine is
settings.load_profile("tests")
os.environ["BOTO_DISABLE_CRT"] = "true"  # with awscrt beside it botocore orders a URL's parameters in another way


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Around each test as a whole, so that its time limit does not run while it waits for its turn."""
    with beside_others() if item.get_closest_marker("alone") is None else alone():
        return (yield)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[RunningSandbox]:
    """ProcessMind as it is, with every parameter demanded."""
    async with running(SandboxSettings(tmp_path / "processmind", KEY, strict=True)) as sandbox:
        yield sandbox


@pytest.fixture
def site(tmp_path: Path, sandbox: RunningSandbox) -> Site:
    """A configuration for it."""
    return Site(tmp_path, sandbox.base_url)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for all tests of a process; each makes itself a database."""
    with _cluster() as running_server:
        yield running_server


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL for a test that ends it: what others left in a shared one would be flushed before it is back."""
    with _cluster() as running_server:
        yield running_server


@contextmanager
def _cluster() -> Iterator[Postgres]:
    if server.programs() is None:
        pytest.skip(server.REMEDY)
    # Not below pytest's own directory, which only its user may enter.
    with TemporaryDirectory(prefix="tablefeed-pg-") as root:
        Path(root).chmod(0o755)
        with serving_postgres(Path(root) / "cluster") as running_server:
            yield running_server


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The container image of this tree."""
    try:
        yield engines.build_image()
    except engines.UnavailableError as error:
        pytest.skip(str(error))
    finally:
        engines.leave_no_mount()
