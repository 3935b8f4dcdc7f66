"""The image for real: built, confined, without a shell, drained, and in the pods of the Kubernetes examples."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from support import engine as engines
from support.daemon import KEY, contents
from support.deployment import CONFIGURATION, Document, Example
from support.engine import CONFINED, USER, Container, Engine, volume
from support.postgres import PASSWORD, Postgres
from support.postgres import USER as DATABASE_USER
from support.stores import Server, serving
from tablefeed import __version__
from tablefeed.lease import Writer

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(bool(engines.why_not()), reason=engines.why_not()),
]
MEGABYTE = 10**6
SANDBOX = ("sandbox", "--listen=127.0.0.1:8800", "--data=/data")
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).status)"
EXPORT = """#!/bin/sh
printf one > "$2/one.csv"
printf two > "$2/two.csv"
"""


@pytest.fixture
async def engine(image: str) -> AsyncIterator[Engine]:
    async with engines.engine() as started:
        yield started


def key_file(path: Path, owner: int = USER) -> Path:
    """The API key as a secret that only the container's user may read."""
    path.write_text(KEY + "\n")
    os.chown(path, owner, -1)
    path.chmod(0o400)
    return path


def environment(**more: str) -> dict[str, str]:
    """A whole configuration."""
    feed = {"name": "orders", "directory": "/exports", "datatable_id": "table-456", "dataset_id": "dataset-1"}
    return {
        "TABLEFEED_API__BASE_URL": "http://127.0.0.1:8800",
        "TABLEFEED_API__TENANT_ID": "tenant-123",
        "TABLEFEED_API__API_KEY_FILE": "/run/secrets/api-key",
        "TABLEFEED_FEEDS": json.dumps([feed]),
        **more,
    }


def mounts(**volumes: Path) -> list[str]:
    """The options that mount directories and files; `__` in a name stands for a slash, `_` for a dash."""
    places = {name.replace("__", "/").replace("_", "-"): path for name, path in volumes.items()}
    return [f"--volume={path}:/{place}" for place, path in places.items()]


async def sandbox(engine: Engine, data: Path, *options: str) -> Container:
    """A sandbox that serves."""
    environ = {"TABLEFEED_SANDBOX_API_KEY": KEY}
    started = await engine.start(*SANDBOX, options=(*CONFINED, *options, f"--volume={data}:/data"), environ=environ)
    await started.until_said("The sandbox serves")
    return started


def share_network(with_: Container) -> str:
    """The option by which a container talks to another on loopback, as in a pod."""
    return f"--network=container:{with_.name}"


async def is_empty(directory: Path) -> bool:
    """Whether no file lies in a directory itself."""
    return not any(path.is_file() for path in directory.iterdir())


async def test_the_image_is_small_and_holds_what_it_needs(engine: Engine) -> None:
    """It adds less than 120 MB to its base: no pip, no tests of libraries, and bytecode for all of its code."""
    _, told = await engines.podman("image", "inspect", engines.IMAGE)
    (inspected,) = json.loads(told)
    config = inspected["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    base, _ = engines.base_image()
    _, told = await engines.podman("image", "inspect", base)
    assert inspected["Size"] - json.loads(told)[0]["Size"] < 120 * MEGABYTE
    questions = """
import importlib.util, pathlib, sys
sources = list(pathlib.Path(sys.prefix, "lib").rglob("*.py"))
bare = [str(s) for s in sources if not pathlib.Path(importlib.util.cache_from_source(s)).exists()]
left = [str(p) for p in pathlib.Path(sys.prefix).rglob("*") if p.name in ("pip", "testing")]
assert len(sources) > 500 and (bare, left) == ([], []), (bare, left)
"""
    asked = await engine.start("-c", questions, options=("--network=none", "--entrypoint=python3"))
    assert await asked.code() == 0, await asked.log()


async def test_a_file_is_delivered_in_full_confinement(engine: Engine, tmp_path: Path) -> None:
    """User 10001, read-only root, no capability, no shell, configured by its environment; the key shows nowhere."""
    exports, data = volume(tmp_path / "exports"), volume(tmp_path / "data")
    store = await sandbox(engine, data, "--network=none")
    places = mounts(exports=exports, run__secrets__api_key=key_file(tmp_path / "key"))
    options = (*CONFINED, *places, share_network(store))
    daemon = await engine.start(options=options, environ=environment())
    await daemon.until_event("ready")
    (exports / "orders.csv").write_bytes(b"a,b\n1,2\n")
    await daemon.until_event("file_archived")
    assert list(contents(data / "objects").values()) == [b"a,b\n1,2\n"]
    assert (exports / "archive/orders.csv").stat().st_size == 8

    status = Path(f"/proc/{await daemon.pid()}/status").read_text()
    ids = next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
    assert set(ids) == {str(USER)}
    assert "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000" in status
    code, _ = await daemon.run("sh", "-c", "true")
    assert code != 0, "there was a shell all the while"

    code, environ = await daemon.run("python3", "-c", "print(open('/proc/1/environ').read())")
    assert code == 0
    for told in (await daemon.inspect(), await daemon.log(), environ):
        assert "TABLEFEED" in told or "tablefeed" in told or "event" in told
        assert KEY not in told
        assert "X-Amz-Signature" not in told

    assert await daemon.end() == 0
    assert await daemon.events("stopped")
    assert await store.end() == 0


@pytest.mark.parametrize("listen", ["127.0.0.1:8787", ":8787", ""])
async def test_the_health_check_tells_whether_the_daemon_lives(engine: Engine, tmp_path: Path, listen: str) -> None:
    """0 while it lives, 1 when it hangs or is not there; with HTTP turned off the ledger's lock tells."""
    exports, ledger = volume(tmp_path / "exports"), volume(tmp_path / "ledger")
    places = mounts(exports=exports, var__lib__tablefeed=ledger, run__secrets__api_key=key_file(tmp_path / "key"))
    options = (*CONFINED, *places, "--network=none")
    environ = environment(TABLEFEED_HTTP__LISTEN=listen)
    daemon = await engine.start(options=options, environ=environ)
    await daemon.until_event("ready")
    assert await daemon.healthy()
    if listen:
        pid = await daemon.pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            assert not await daemon.healthy()
        finally:
            os.kill(pid, signal.SIGCONT)
        await engines.until(daemon.healthy)
    children = Path(f"/proc/{await daemon.pid()}/task/{await daemon.pid()}/children")
    assert children.read_text() == "", "process 1 has been left with the remains of health checks"
    assert await daemon.end() == 0
    after = await engine.start("status", "--alive", options=options, environ=environ)
    assert await after.code() == 1
    assert len((await after.log()).strip().splitlines()) == 1


async def test_sigterm_drains(engine: Engine, tmp_path: Path) -> None:
    """An upload that is under way when the container is stopped is finished, no other is begun, and the exit is 0."""
    arrived, finish = asyncio.Event(), asyncio.Event()

    async def hold(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        arrived.set()
        await finish.wait()
        return server.take(request, body)

    exports, server = volume(tmp_path / "exports"), Server(hold)
    places = mounts(exports=exports, run__secrets__api_key=key_file(tmp_path / "key"))
    async with serving(server) as origin:
        environ = environment(
            TABLEFEED_API__BASE_URL=origin, TABLEFEED_HTTP__LISTEN="", TABLEFEED_UPLOAD__CONCURRENCY="1"
        )
        daemon = await engine.start(options=(*CONFINED, *places, "--network=host"), environ=environ)
        await daemon.until_event("ready")
        (exports / "first.csv").write_bytes(b"first")
        try:
            async with asyncio.timeout(15):
                await arrived.wait()
        except TimeoutError:
            raise AssertionError(await daemon.log()) from None
        (exports / "second.csv").write_bytes(b"second")
        ending = asyncio.create_task(daemon.end())
        await daemon.until_said('"draining"')  # the engine does not call it running any more
        finish.set()
        assert await ending == 0
    assert contents(exports) == {"first.csv": b"first", "second.csv": b"second"}
    assert (exports / "archive/first.csv").exists()
    assert (exports / "second.csv").exists()


async def test_it_runs_as_the_user_that_writes_the_exports(engine: Engine, tmp_path: Path) -> None:
    """With another user but the image's group, the ledger's volume is writable, and files stay their owner's."""
    user = 20_002
    exports, data = volume(tmp_path / "exports", user), volume(tmp_path / "data")
    store = await sandbox(engine, data, "--network=none")
    places = mounts(exports=exports, run__secrets__api_key=key_file(tmp_path / "key", user))
    options = (*CONFINED, *places, share_network(store), f"--user={user}:{USER}")
    daemon = await engine.start(options=options, environ=environment())
    await daemon.until_event("ready")
    dropped = exports / "orders.csv"
    dropped.write_bytes(b"a,b\n")
    os.chown(dropped, user, user)
    await daemon.until_event("file_archived")
    assert (exports / "archive/orders.csv").stat().st_uid == user
    assert await daemon.end() == 0


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ((f"--user={USER}:{USER}",), Writer.UNKNOWN),
        ((f"--user=20002:{USER}",), Writer.NONE),
        ((f"--user={USER}:{USER}", "--cap-add=LEASE"), Writer.NONE),
    ],
    ids=["another user", "the owner", "another user with CAP_LEASE"],
)
async def test_the_kernel_tells_who_writes(
    engine: Engine, tmp_path: Path, options: tuple[str, ...], answer: Writer
) -> None:
    """It answers the owner of a file, and any user to whom podman gives CAP_LEASE; else two observations must do."""
    exports = volume(tmp_path / "exports")
    (exports / "orders.csv").write_bytes(b"a,b\n")
    os.chown(exports / "orders.csv", 20_002, 20_002)
    question = """
import os
from tablefeed.lease import writer_of
print(writer_of(os.open("/exports/orders.csv", os.O_RDONLY)).value)
"""
    confined = (*CONFINED, *mounts(exports=exports), "--network=none", "--entrypoint=/opt/tablefeed/bin/python3")
    asked = await engine.start("-c", question, options=(*confined, *options))
    assert await asked.code() == 0, await asked.log()
    assert (await asked.log()).strip() == answer.value


class Pod:
    """What the kubelet makes of an example: its volumes as directories, its containers from their own words."""

    def __init__(self, engine: Engine, example: Example, root: Path) -> None:
        self._engine = engine
        self._example = example
        self._base, _ = engines.base_image()
        self._volumes = {entry["name"]: root / entry["name"] for entry in example.pod["volumes"]}
        for entry in example.pod["volumes"]:
            self._fill(entry)
        self.exports = self._volumes["exports"]
        self.program = root / "export-orders"
        self.program.write_text(EXPORT)
        self.program.chmod(0o755)

    def _fill(self, entry: Document) -> None:
        """As the kubelet does with `fsGroup`: the group may read secrets, and write empty directories."""
        path = volume(self._volumes[entry["name"]], 0, 0o2777)
        if "configMap" in entry:
            (path / CONFIGURATION).write_text(self._example.configuration)
        if "secret" in entry:
            key = key_file(path / "api-key", 0)
            os.chown(key, 0, self._example.pod["securityContext"]["fsGroup"])
            key.chmod(entry["secret"]["defaultMode"])

    async def probed(self, container: Container) -> dict[str, int]:
        """What each probe of our container is answered."""
        probes = {name: probe for name, probe in self._example.tablefeed.items() if name.endswith("Probe")}
        (port,) = self._example.tablefeed["ports"]
        answers = {}
        for name, probe in probes.items():
            url = f"http://127.0.0.1:{port['containerPort']}{probe['httpGet']['path']}"
            code, output = await container.run("python3", "-c", ASK, url)
            assert code == 0, output
            answers[name] = int(output)
        return answers

    async def start(self, name: str, *more: str, **environ: str) -> Container:
        """Start one of the containers, with more options: those of its network."""
        container = self._example.container(name)
        context: Any = self._example.pod["securityContext"]
        options = (
            [*CONFINED] if name == "tablefeed" else [*CONFINED[:-2], f"--volume={self.program}:/usr/bin/export-orders"]
        )
        options += [*more, f"--user={context['runAsUser']}:{context['runAsGroup']}"]
        options += [f"--group-add={context['fsGroup']}"]
        for mount in container["volumeMounts"]:
            mode = ":ro" if mount.get("readOnly") else ""
            options.append(f"--volume={self._volumes[mount['name']]}:{mount['mountPath']}{mode}")
        arguments = container.get("args", [])
        if "command" in container:
            options.append(f"--entrypoint={json.dumps(container['command'])}")
        image = engines.IMAGE if name == "tablefeed" else self._base
        return await self._engine.start(*arguments, options=options, environ=environ, image=image)


async def test_the_sidecars_pod_loses_nothing(engine: Engine, tmp_path: Path) -> None:
    """ProcessMind comes back after the export: its container waits, the sidecar is ended after it, all is delivered."""
    pod = Pod(engine, Example("sidecar.yaml"), tmp_path)
    data = volume(tmp_path / "data")
    base_url = {"TABLEFEED_API__BASE_URL": "http://127.0.0.1:8800"}
    sidecar = await pod.start("tablefeed", "--network=none", **base_url)
    await sidecar.until_event("ready")
    assert await pod.probed(sidecar) == {"startupProbe": 200, "livenessProbe": 200, "readinessProbe": 200}
    export = await pod.start("export", share_network(sidecar))
    await sidecar.until_event("file_delayed")
    assert await export.running()
    await sandbox(engine, data, share_network(sidecar))
    assert await export.code() == 0, await export.log()
    assert await sidecar.end() == 0
    assert await is_empty(pod.exports)
    assert sorted(contents(data / "objects").values()) == [b"one", b"two"]
    assert KEY not in await sidecar.inspect() + await sidecar.log()


async def test_one_pass_after_an_export_delivers_all(engine: Engine, tmp_path: Path) -> None:
    """The init container exports, `run --once` delivers and ends with 0."""
    pod = Pod(engine, Example("export-then-deliver.yaml"), tmp_path)
    data = volume(tmp_path / "data")
    store = await sandbox(engine, data, "--network=none")
    export = await pod.start("export", share_network(store))
    assert await export.code() == 0, await export.log()
    base_url = {"TABLEFEED_API__BASE_URL": "http://127.0.0.1:8800"}
    delivery = await pod.start("tablefeed", share_network(store), **base_url)
    assert await delivery.code() == 0, await delivery.log()
    assert await is_empty(pod.exports)
    assert sorted(contents(data / "objects").values()) == [b"one", b"two"]


async def test_the_fleets_pods_share_a_volume_and_a_ledger(engine: Engine, tmp_path: Path, postgres: Postgres) -> None:
    """Two pods of one Deployment deliver each file once between them, and the password shows in no log."""
    example = Example("fleet.yaml")
    pod = Pod(engine, example, tmp_path)
    volume(pod.exports / "orders")
    (tmp_path / "configuration" / CONFIGURATION).write_text(
        example.configuration.replace('settle = "30s"', 'settle = "1s"')
    )
    database = postgres.database().rpartition("/")[2]
    socket = f"{DATABASE_USER}:{PASSWORD}@/{database}?host=/run/postgresql&port={postgres.port}"
    environ = {
        "TABLEFEED_API__BASE_URL": "http://127.0.0.1:8800",
        "TABLEFEED_LEDGER__URL": f"postgresql+psycopg://{socket}",
    }
    where = f"--volume={postgres.root}:/run/postgresql"
    first = await pod.start("tablefeed", "--network=none", where, **environ, TABLEFEED_FLEET__NODE="first")
    await sandbox(engine, data := volume(tmp_path / "data"), share_network(first))
    beside = {"TABLEFEED_FLEET__NODE": "second", "TABLEFEED_HTTP__LISTEN": ":8788"}
    second = await pod.start("tablefeed", share_network(first), where, **environ, **beside)
    for container in (first, second):
        await container.until_event("ready")
    assert await pod.probed(first) == {"startupProbe": 200, "livenessProbe": 200, "readinessProbe": 200}
    names = [f"orders-{number:03}.csv" for number in range(100)]
    for name in names:
        (pod.exports / "orders" / name).write_text(name)
        os.chown(pod.exports / "orders" / name, USER, USER)

    async def all_archived() -> bool:
        return postgres.execute(database, "SELECT count(*) FROM files WHERE state = 'archived'") == str(len(names))

    await engines.until(all_archived)
    sent = [len(await container.events("file_archived")) for container in (first, second)]
    assert sum(sent) == len(names)
    assert min(sent) > 0
    assert sorted(contents(pod.exports / "orders" / "archive")) == names
    assert sorted(body.decode() for body in contents(data / "objects").values()) == names
    assert postgres.execute(database, "SELECT name FROM nodes ORDER BY name").split() == ["first", "second"]
    for container in (second, first):
        assert await container.end() == 0
        assert PASSWORD not in await container.log()
