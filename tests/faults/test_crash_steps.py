"""SIGKILL at each named step: the next start continues, and the books are clean."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest

from faults.books import Books, Fate, unfinished
from faults.crash_daemon import started
from faults.crash_site import TOO_LARGE, crash_site
from faults.crash_steps import PHASES
from faults.faulty import REFUSED_NAME, Faulty, Weather, misbehaving
from support.archive import other_file_system
from support.daemon import KEY, Daemon, Site, running_daemon
from tablefeed.sandbox.server import SandboxSettings, running

SENT = "SELECT md5 FROM files WHERE md5 IS NOT NULL"


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    with other_file_system(tmp_path) as it:
        yield it


@pytest.fixture
async def faulty(tmp_path: Path) -> AsyncIterator[Faulty]:
    """A sandbox that counts what it takes."""
    settings = SandboxSettings(tmp_path / "processmind", KEY)
    async with running(settings) as sandbox, misbehaving(sandbox.base_url, Weather(Random(0))) as it:
        yield it


def fill(site: Site, books: Books, turn: int) -> None:
    """Some files for every feed, small ones and one that is sent in pieces, and some that are refused."""
    for feed, settings in site.feeds.items():
        directory = Path(settings["directory"])
        for n, size in enumerate((10, 70_000, 2_500_000)):
            name, content = f"{turn}-{n}.csv", Random(f"{feed}/{turn}/{n}").randbytes(size)
            books.note(feed, name, content)
            (directory / name).write_bytes(content)
            if settings.get("ready") == "marker":
                (directory / f"{name}.done").write_text(name)
    near = Path(site.feeds["near"]["directory"])
    for n in range(2 * turn, 2 * turn + 2):
        for name, content in ((f"{REFUSED_NAME}{n}.csv", b"%d" % n), (f"large-{n}.csv", bytes(TOO_LARGE + n))):
            books.note("near", name, content, Fate.REFUSED)
            (near / name).write_bytes(content)


async def until_done(daemon: Daemon, site: Site) -> None:
    """Wait until everything has found its place."""
    await daemon.until_event("ready")
    await daemon.until(lambda: not unfinished(site))


@pytest.mark.parametrize("phase", PHASES)
async def test_a_kill_at_any_step_is_continued(phase: str, tmp_path: Path, far: Path, faulty: Faulty) -> None:
    """Each file has one object and its place in the archive, and what had been committed is not sent again."""
    site, books = crash_site(tmp_path, faulty.api.origin, far), Books()
    sent: dict[str, int] = {}
    for turn, step in enumerate(PHASES[phase]):
        fill(site, books, turn)
        async with running_daemon(site.config, **started(step, 2)) as killed:
            assert await killed.death() == -9, f"{step}: {killed.log}"
        sent |= {row["md5"]: faulty.taken[row["md5"]] for row in site.rows(SENT) if row["md5"] not in sent}
    async with running_daemon(site.config) as daemon:
        await until_done(daemon, site)
        assert await daemon.end() == 0, daemon.log
    assert str(books.audit(site, tmp_path / "processmind" / "objects")) == "the books are clean"
    assert {md5: faulty.taken[md5] for md5 in sent} == sent
