"""The compose file for real, run by podman-compose: daemon and sandbox, and the fleet on PostgreSQL."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support import composed
from support import engine as engines
from support.composed import Composition, composing
from support.daemon import contents
from support.engine import Container, volume

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(bool(composed.why_not()), reason=composed.why_not()),
]
EXPORTER = 20_002
"""The user that writes the exports, as who the daemons run."""
FLEET = {"fleet-1": 8788, "fleet-2": 8789, "fleet-3": 8790}
"""The nodes, and the ports of their pages."""
OBJECTS = """
import json, pathlib
print(json.dumps([path.stat().st_size for path in pathlib.Path("objects").rglob("*") if path.is_file()]))
"""


@pytest.fixture
async def composition(image: str, tmp_path: Path) -> AsyncIterator[Composition]:
    async with composing(tmp_path) as made:
        yield made


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """What the compose file mounts into its one daemon."""
    return volume(tmp_path / "exports", EXPORTER)


@pytest.fixture
def exports_of_fleet(tmp_path: Path, exports: Path) -> Path:
    """What it mounts into each daemon of the fleet, beside that one."""
    return volume(tmp_path / "exports-of-fleet", EXPORTER)


def drop(directory: Path, name: str, content: bytes) -> None:
    """A file as its user exports it."""
    part = directory.parent / name
    part.write_bytes(content)
    os.chown(part, EXPORTER, EXPORTER)
    part.rename(directory / name)


async def up(composition: Composition, *options: str) -> None:
    """Start it as its first lines say."""
    await composition.up(*options, TABLEFEED_UID=str(EXPORTER))


async def objects(composition: Composition) -> list[int]:
    """How long each object at the sandbox is."""
    code, output = await composition.container("sandbox").run("python3", "-c", OBJECTS)
    assert code == 0, output
    found: list[int] = json.loads(output)
    return found


async def sent(node: Container) -> int:
    """How many files a daemon has delivered. Before PostgreSQL answers it may end with a line that is no JSON."""
    return (await node.log()).count('"event":"file_archived"')


async def test_daemon_and_sandbox_deliver_what_is_dropped(composition: Composition, exports: Path) -> None:
    """Both become healthy, a file goes to archive and object as its user's, and the page is there on loopback."""
    await up(composition)
    daemon = composition.container("tablefeed")
    await daemon.until_event("ready")
    for service in ("tablefeed", "sandbox"):
        await composition.until(composition.container(service).healthy)
    drop(exports, "orders.csv", b"a,b\n1,2\n")
    await daemon.until_event("file_archived")
    assert contents(exports) == {"orders.csv": b"a,b\n1,2\n"}
    assert (exports / "archive/orders.csv").stat().st_uid == EXPORTER
    assert await objects(composition) == [8]
    told = await composition.status(8787)
    assert (told["ok"], told["totals"]["delivered_today"]) == (True, 1)


async def test_an_end_in_mid_upload_is_a_drain_and_makes_no_second_object(
    composition: Composition, exports: Path
) -> None:
    """All services end at once and cleanly; the next start sends to the same object; `down` leaves the books."""
    composition.configure("tablefeed", TABLEFEED_UPLOAD__BANDWIDTH="1MiB/s")
    size = 8 << 20
    await up(composition)
    daemon = composition.container("tablefeed")
    await daemon.until_event("ready")
    drop(exports, "orders.csv", os.urandom(size))

    async def is_sending() -> bool:
        return bool((await composition.status(8787))["totals"]["uploading"])

    await composition.until(is_sending)
    await composition.compose("stop")
    assert [await composition.container(service).code() for service in ("tablefeed", "sandbox")] == [0, 0]
    (draining,) = await daemon.events("draining")
    assert draining["uploads"] == 1
    assert await daemon.events("stopped")

    await up(composition)
    await daemon.until_event("file_archived")
    assert await objects(composition) == [size]
    books = await composition.volumes()
    await composition.compose("down")
    assert await composition.containers() == []
    assert await composition.volumes() == books


@pytest.fixture(scope="module")
def _postgres_image(image: str) -> None:
    try:
        composed.postgres_image()
    except engines.UnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("_postgres_image")
async def test_the_fleet_shares_its_work_and_outlasts_a_node(composition: Composition, exports_of_fleet: Path) -> None:
    """Three nodes are on each page and deliver; when one is killed, the others also deliver what it had claimed."""
    composition.configure(*FLEET, TABLEFEED_FLEET__LEASE="10s")
    await up(composition, "--profile=fleet")
    nodes = {name: composition.container(name) for name in FLEET}

    async def all_live() -> bool:
        told = [await composition.status(port) for port in FLEET.values()]
        return all(it and it["fleet"]["living"] == len(FLEET) for it in told)

    await composition.until(all_live)
    told = [await composition.status(port) for port in FLEET.values()]
    assert [it["node"] for it in told] == [*FLEET]
    assert all({node["name"] for node in it["fleet"]["nodes"]} == {*FLEET} for it in told)
    for service in (*FLEET, "postgres"):
        await composition.until(composition.container(service).healthy)

    names = [f"orders-{number:03}.csv" for number in range(300)]
    for name in names:
        drop(exports_of_fleet, name, name.encode())

    async def each_has_sent() -> bool:
        return min([await sent(node) for node in nodes.values()]) > 0

    await composition.until(each_has_sent)
    code, output = await composition.podman("kill", "--signal=KILL", nodes["fleet-2"].name)
    assert code == 0, output
    archive = exports_of_fleet / "archive"
    await composition.until(lambda: asyncio.to_thread(lambda: len(contents(archive)) == len(names)))
    assert contents(archive) == {name: name.encode() for name in names}
    assert len(await objects(composition)) == len(names)
