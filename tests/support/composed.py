"""The compose file, run by podman-compose in a network of its own, which leads nowhere else.

Two namespaces that end with the test hold the services' network and mounts: nothing outside can be reached from there,
the ports that are published are free, and neither podman's files nor its name server are those of this machine.
"""

import asyncio
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from support import engine as engines
from support.debian import CACHE, extract, locked
from support.deployment import COMPOSE, compose
from support.engine import IMAGE, Container, ended, import_image, podman_apart, podman_command

_TOOLS = ("catatonit", "ip", "iptables", "nsenter", "unshare")
_HELPERS = ("netavark", "aardvark-dns")
_PLACES = ("/usr/lib/podman", "/usr/libexec/podman", "/usr/local/lib/podman", "/usr/local/libexec/podman")
"""Where podman looks for its helpers, which no PATH names."""
_NETWORK = """
set -eu
ip link set lo up
mkdir -p /run/containers/networks
mount -t tmpfs networks /run/containers/networks
echo ready
cat
"""
"""Begins the network; it ends with its standard input."""
_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "netavark"
network_config_dir = "{directory}"
"""
_DATA = "var/lib/postgresql/data"
_SERVE = """#!/bin/sh
# What the official image makes of its environment, as far as the compose file uses it.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf %s "$POSTGRES_PASSWORD" > /tmp/password
  initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl --options="-c listen_addresses=''" --wait start
  createdb --username="$POSTGRES_USER" --maintenance-db=postgres "$POSTGRES_DB"
  pg_ctl --wait stop
fi
exec postgres -c 'listen_addresses=*'
"""
_WITHOUT = ("*/libLLVM*", "*/llvmjit*")
"""Half of what comes with PostgreSQL, and not needed."""
_BESIDE = ("base-files", "coreutils", "dash", "tzdata")
"""What the server and what starts it need, and no package of PostgreSQL says."""
_POSTGRES = 999
"""The official image's user."""


def why_not() -> str:
    """Why no compose file can be run here; empty when one can."""
    if reason := engines.why_not():
        return reason
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    missing += [name for name in _HELPERS if not any(Path(place, name).exists() for place in _PLACES)]
    missing += [] if importlib.util.find_spec("podman_compose") else ["podman-compose"]
    if missing:
        return f"{', '.join(missing)} not installed here"
    bridge = ("unshare", "--net", "ip", "link", "add", "probe", "type", "bridge")
    tried = subprocess.run(bridge, capture_output=True, text=True, check=False)
    return f"no network can be made here: {tried.stderr.strip()}" if tried.returncode else ""


def postgres_image() -> None:
    """Make the image of PostgreSQL that the compose file names where it is not there: Debian's, of the same version.

    Raises UnavailableError.
    """
    wanted = compose()["services"]["postgres"]["image"]
    name = f"localhost/{wanted}"
    version = wanted.partition(":")[2]
    with locked("postgres-image"):
        if subprocess.run(podman_command("image", "exists", name), check=False).returncode == 0:
            return
        base, _ = engines.base_image()
        release = base.rpartition(":")[2].partition("-")[0]
        with tempfile.TemporaryDirectory(prefix="tablefeed-postgres-") as directory:
            root = Path(directory, "root")
            root.mkdir(mode=0o755)
            extract(release, (f"postgresql-{version}", *_BESIDE), root)
            _import_postgres(name, root, f"/usr/lib/postgresql/{version}/bin")


def _import_postgres(name: str, root: Path, programs: str) -> None:
    """Make the image of a Debian with PostgreSQL, which serves as the official one does."""
    serve, data = root / "usr/local/bin/serve-postgres", root / _DATA
    serve.parent.mkdir(parents=True, exist_ok=True)
    serve.write_text(_SERVE)
    serve.chmod(0o755)
    user = f"postgres:x:{_POSTGRES}:{_POSTGRES}::/var/lib/postgresql:/bin/sh\n"
    (root / "etc/passwd").write_text(f"root:x:0:0:root:/root:/bin/sh\n{user}")
    (root / "etc/group").write_text(f"root:x:0:\npostgres:x:{_POSTGRES}:\n")
    if not (root / "var/run").is_symlink():  # setting base-files up would have done it
        shutil.rmtree(root / "var/run", ignore_errors=True)
        (root / "var/run").symlink_to("../run")
    data.mkdir(mode=0o700, parents=True)
    os.chown(data, _POSTGRES, _POSTGRES)
    says = (
        f"ENV PATH=/usr/local/bin:{programs}:/usr/bin:/bin",
        "ENV LANG=C.UTF-8",
        f"ENV PGDATA=/{_DATA}",
        f"VOLUME /{_DATA}",
        'ENTRYPOINT ["serve-postgres"]',
        "STOPSIGNAL SIGINT",
    )
    import_image(name, root, says, _WITHOUT)


class Composition:
    """The services of the compose file, as one project of podman-compose.

    `root`: what `..` is for the file; `store`: where podman keeps what is made; `network`: a process in the namespaces.
    """

    def __init__(self, root: Path, store: Path, network: int) -> None:
        self._root = root
        self._store = store
        self._name = f"tablefeed-tests-{uuid.uuid4().hex[:12]}"
        self._inside = ("nsenter", f"--target={network}", "--net", "--mount")
        self._environ = {"CONTAINERS_CONF": str(root / "containers.conf")}
        self._files = [root / "config" / COMPOSE.name]
        self._program = root / "podman"

    def lay(self) -> None:
        """Copy what is deployed, and write what podman and podman-compose need here."""
        self._files[0].parent.mkdir()
        for name in (COMPOSE.name, compose()["secrets"]["api-key"]["file"]):
            shutil.copy(COMPOSE.parent / name, self._files[0].parent / name)
        networks = self._root / "networks"
        networks.mkdir()
        (self._root / "containers.conf").write_text(_CONFIGURATION.format(directory=networks))
        self._program.write_text(f'#!/bin/sh\nexec {shlex.join([*self._inside, *podman_apart(self._store)])} "$@"\n')
        self._program.chmod(0o755)

    def configure(self, *services: str, **environ: str) -> None:
        """Give services more variables, by one more file."""
        self._files.append(self._root / "config" / f"more-{len(self._files)}.yaml")
        self._files[-1].write_text(json.dumps({"services": {name: {"environment": environ} for name in services}}))

    async def compose(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """What podman-compose prints, run in the file's directory. It must end with 0."""
        files = [f"--file={path}" for path in self._files]
        how = (f"--podman-path={self._program}", f"--project-name={self._name}", *files)
        command = (sys.executable, "-m", "podman_compose", *how, *arguments)
        code, output = await ended(*command, environ={**self._environ, **(environ or {})}, patience=120)
        assert code == 0, f"podman-compose {arguments} ended with {code}:\n{output}"
        return output

    async def up(self, *options: str, **environ: str) -> None:
        """Start all services. Their health is asked for meanwhile, as timers of systemd do elsewhere."""
        asking = asyncio.create_task(self._ask_health())
        try:
            await self.compose(*options, "up", "--detach", environ=environ)
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking

    async def _ask_health(self) -> None:
        while True:
            for name in await self.containers():
                await self.podman("healthcheck", "run", name)
            await asyncio.sleep(0.5)

    async def podman(self, *arguments: str) -> tuple[int, str]:
        """Run podman, in this network, to its end: (exit code, all output)."""
        return await ended(str(self._program), *arguments, environ=self._environ)

    async def containers(self) -> list[str]:
        """The names of all containers that there are, ended ones too."""
        return await self._all("ps", "--all", "--format={{.Names}}")

    async def volumes(self) -> list[str]:
        """The names of all volumes that there are."""
        return await self._all("volume", "ls", "--format={{.Name}}")

    async def _all(self, *question: str) -> list[str]:
        code, output = await self.podman(*question)
        assert code == 0, output
        return output.split()

    async def until(self, holds: Callable[[], Any]) -> None:
        """Wait until a condition, a coroutine function, holds; when it does not, all logs are told."""
        try:
            await engines.until(holds)
        except AssertionError as error:
            logs = await self.compose("--profile=fleet", "logs", "--tail=20")
            raise AssertionError(f"{error}:\n{logs}") from None

    def container(self, service: str) -> Container:
        """The one container of a service."""
        return Container(f"{self._name}_{service}_1", self.podman)

    async def status(self, port: int) -> dict[str, Any]:
        """What the page at a port of loopback tells; nothing while none answers."""
        ask = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
        url = f"http://127.0.0.1:{port}/api/status"
        code, output = await ended(*self._inside, sys.executable, "-c", ask, url)
        told: dict[str, Any] = json.loads(output) if code == 0 else {}
        return told


@asynccontextmanager
async def composing(root: Path) -> AsyncIterator[Composition]:
    """A composition in a directory. Its containers, volumes and network end with the block."""
    code, output = await engines.podman("tag", IMAGE, f"localhost/{compose()['services']['tablefeed']['image']}")
    assert code == 0, output
    network = await asyncio.create_subprocess_exec(
        *("unshare", "--net", "--mount", "sh", "-c", _NETWORK),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert network.stdin is not None
    assert network.stdout is not None
    try:
        assert await network.stdout.readline() == b"ready\n"
        with tempfile.TemporaryDirectory(prefix="composed-", dir=CACHE) as store:
            made = Composition(root, Path(store), network.pid)
            made.lay()
            try:
                yield made
            finally:
                code, output = await made.podman("pod", "rm", "--force", "--all", "--time=0")
                assert code == 0, output
    finally:
        network.stdin.close()
        await network.wait()
