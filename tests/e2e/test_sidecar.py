"""The sidecar's example with processes for containers: its script and its configuration, as they stand there."""

import asyncio
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.daemon import KEY, Daemon, clean_environ, running_daemon
from support.deployment import CONFIGURATION, Example
from support.patience import PATIENCE, until
from support.sandbox import contents
from tablefeed.sandbox.server import SandboxSettings, running

EXPORT = """#!/bin/sh
printf 'one' > "$2/.one.part"; mv "$2/.one.part" "$2/one.csv"
printf 'two' > "$2/TWO.CSV"
printf 'three' > "$2/three of all.xlsx"
touch "$MARK"
"""


class Pod:
    """The pod's volumes as directories, and its containers as processes."""

    def __init__(self, root: Path) -> None:
        self.exports = root / "exports"
        self.objects = root / "sandbox/objects"
        self.mark = root / "exported"
        self._root = root
        self._example = Example("sidecar.yaml")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.exports.mkdir()
        (root / "api-key").write_text(KEY)
        program = root / "bin/export-orders"
        program.parent.mkdir()
        program.write_text(EXPORT)
        program.chmod(0o755)

    @asynccontextmanager
    async def sidecar(self, **settings: str) -> AsyncIterator[Daemon]:
        """The daemon, with the ConfigMap's file and the pod's paths in the place of the container's."""
        config = self._root / CONFIGURATION
        config.write_text(self._example.configuration.replace('"/exports', f'"{self.exports}'))
        environ = {
            "TABLEFEED_API__BASE_URL": f"http://127.0.0.1:{self._port}",
            "TABLEFEED_API__API_KEY_FILE": str(self._root / "api-key"),
            "TABLEFEED_LEDGER__URL": f"sqlite:///{self._root}/ledger.db",
            "TABLEFEED_HTTP__LISTEN": "",
            **settings,
        }
        async with running_daemon(config, environ=environ) as daemon:
            await daemon.until_event("ready")
            yield daemon

    @asynccontextmanager
    async def export(self) -> AsyncIterator[Process]:
        """The export's container."""
        container = self._example.container("export")
        words = [*container["command"], *container["args"]]
        path = f"{self._root}/bin:{clean_environ()['PATH']}"
        process = await asyncio.create_subprocess_exec(
            *(word.replace("/exports", str(self.exports)) for word in words),
            env=clean_environ(PATH=path, MARK=str(self.mark)),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await until(self.mark.exists)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    @asynccontextmanager
    async def processmind(self) -> AsyncIterator[None]:
        """The API and its store; outside the block, they are down."""
        settings = SandboxSettings(self.objects.parent, api_key=KEY)
        async with running(settings, port=self._port):
            yield

    def left(self) -> set[str]:
        """The names of the files that the volume would take with it."""
        return {path.name for path in self.exports.rglob("*") if path.is_file()}


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


async def ended(process: Process) -> int:
    """The exit code."""
    async with asyncio.timeout(60):
        return await process.wait()


async def test_the_job_ends_when_all_is_delivered_and_not_before(pod: Pod) -> None:
    """ProcessMind is down when the export has ended: the Job waits for it, and then nothing is left in the volume."""
    async with pod.sidecar() as daemon, pod.export() as export:
        await daemon.until_event("file_delayed")
        assert export.returncode is None
        assert pod.left() == {"one.csv", "TWO.CSV", "three of all.xlsx"}
        async with pod.processmind():
            assert await ended(export) == 0
            assert pod.left() == set()
            assert sorted(contents(pod.objects).values()) == [b"one", b"three", b"two"]
            assert await daemon.end() == 0


async def test_without_the_wait_files_would_be_lost(pod: Pod) -> None:
    """The drain alone is not enough: after SIGTERM the sidecar ends, whatever lies in the volume."""
    async with pod.sidecar() as daemon, pod.export():
        await daemon.until_event("files_queued")
        assert await daemon.end() == 0
    assert pod.left() == {"one.csv", "TWO.CSV", "three of all.xlsx"}


async def test_a_refused_file_fails_the_job(pod: Pod) -> None:
    """What can never be delivered is named, and no success is reported over it."""
    async with pod.processmind(), pod.sidecar(TABLEFEED_UPLOAD__MAX_SIZE="4B"), pod.export() as export:
        assert await ended(export) == 1
        assert export.stderr is not None
        said = (await export.stderr.read()).decode()
        assert f"refused: {pod.exports}/failed/three of all.xlsx" in said
        assert sorted(contents(pod.objects).values()) == [b"one", b"two"]


async def test_the_export_ends_at_once_when_the_pod_is_evicted(pod: Pod) -> None:
    """It reports no success, and leaves the grace period to the sidecar, which is ended after it."""
    async with pod.sidecar() as daemon, pod.export() as export:
        await daemon.until_event("files_queued")
        export.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await export.wait() == 128 + signal.SIGTERM
