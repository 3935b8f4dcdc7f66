"""The image, built by buildah, and containers of it, run by podman, in a store of their own.

No registry is asked: the image's base is a Debian with the same Python, under the name that the build argument gives.
"""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from support.debian import CACHE, ROOT, UnavailableError, bootstrap, locked, run, wheels
from support.deployment import dockerfile
from support.patience import PATIENCE

IMAGE = "localhost/tablefeed:tests"
USER = 10001
_TOOLS = ("buildah", "podman", "runc")
_PACKAGES = ("ca-certificates", "passwd", "python3", "python3-pip", "python3-venv")
"""What the official image has too, as far as the build uses it."""
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOW = ("--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=file")
_LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
"""Podman's own are higher than a confined root may set."""
_ENVIRON = {"DISABLE_HC_SYSTEMD": "true"}
"""There may be no systemd here that could run health checks by a timer."""


def why_not() -> str:
    """Why no image can be built here; empty when one can."""
    if os.geteuid() != 0:
        return "only root can make a Debian and run containers without a service of the machine"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if not any(map(shutil.which, ("mmdebstrap", "debootstrap"))):
        missing.append("debootstrap")
    return f"{', '.join(missing)} not installed here" if missing else ""


def _store() -> list[str]:
    return [f"--root={CACHE}/containers", f"--runroot={CACHE}/containers-run"]


def podman_command(*arguments: str) -> list[str]:
    """What runs podman with these arguments."""
    return ["podman", *_store(), *_HOW, f"--tmpdir={CACHE}/containers-tmp", *arguments]


def podman_apart(place: Path) -> list[str]:
    """What runs podman with all of its own in a directory of the cache, and these images to read."""
    own = (f"--root={place}/root", f"--runroot={place}/run", f"--tmpdir={place}/state")
    return ["podman", *own, *_HOW, "--storage-driver=overlay", f"--storage-opt=additionalimagestore={CACHE}/containers"]


def base_image() -> tuple[str, str]:
    """(name of an image as the Dockerfile wants it, version of its Python). It is made where it is not there.

    Raises UnavailableError.
    """
    wanted = next(arguments for word, arguments in dockerfile() if word == "ARG").partition("=")[2]
    version, release = wanted.partition(":")[2].rsplit(".", 1)[0], wanted.rpartition("-")[2]
    key = hashlib.sha256(",".join(_PACKAGES).encode()).hexdigest()[:8]
    name = f"localhost/tablefeed-python:{release}-{key}"
    with locked("base-image"):
        if subprocess.run(podman_command("image", "exists", name), check=False).returncode != 0:
            _import_base(name, release)
    return name, version


def _import_base(name: str, release: str) -> None:
    with tempfile.TemporaryDirectory(prefix="tablefeed-base-") as directory:
        root = Path(directory, "root")
        root.mkdir(mode=0o755)
        bootstrap(release, _PACKAGES, root)
        import_image(name, root, [f"ENV {_PATH}"])


def import_image(name: str, root: Path, says: Iterable[str], without: Iterable[str] = ()) -> None:
    """Make an image of a directory. `says`: instructions as in a Dockerfile; `without`: patterns of what to omit."""
    excluded = [f"--exclude={path}" for path in ("./var/cache/apt/*", "./var/lib/apt/lists/*", "./dev/*", *without)]
    with tempfile.TemporaryDirectory(prefix="tablefeed-archive-") as directory:
        archive = str(Path(directory, "root.tar"))
        run("tar", "--directory", str(root), *excluded, "--create", "--file", archive, ".")
        run(*podman_command("import", "--quiet", *(f"--change={line}" for line in says), archive, name))


def build_image() -> str:
    """Build the image of this tree and return its name. Raises UnavailableError where its base cannot be had."""
    base, version = base_image()
    found = wheels(version)
    with tempfile.TemporaryDirectory(prefix="tablefeed-build-") as directory:
        pip = Path(directory, "pip.conf")
        pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        secret = f"--secret=id=pip,src={pip}"
        how = (
            "--isolation=chroot",
            "--format=docker",
            "--layers=false",
            f"--volume={found}:/wheels:ro",
        )
        arguments = (f"--build-arg=PYTHON_IMAGE={base}", f"--tag={IMAGE}", str(ROOT))
        command = ["buildah", *_store(), "bud", *how, secret, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    subprocess.run(podman_command("image", "prune", "--force"), capture_output=True, check=True)
    return IMAGE


def volume(path: Path, owner: int = USER, mode: int = 0o755) -> Path:
    """A new directory to be mounted into a container, and whose it is."""
    path.mkdir()
    os.chown(path, owner, USER)
    path.chmod(mode)
    return path


def leave_no_mount() -> None:
    """Take away what podman leaves mounted on its store; nothing happens while others use it."""
    subprocess.run(["umount", f"{CACHE}/containers/overlay"], capture_output=True, check=False)


async def podman(*arguments: str) -> tuple[int, str]:
    """Run podman to its end: (exit code, all output)."""
    return await ended(*podman_command(*arguments))


async def ended(*command: str, environ: Mapping[str, str] | None = None, patience: float = PATIENCE) -> tuple[int, str]:
    """Run a command to its end: (exit code, all output). `environ`: what its environment has besides."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **_ENVIRON, **(environ or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(patience):
            out, _ = await process.communicate()
    except TimeoutError:
        raise AssertionError(f"{command} did not end within {patience} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode()


Podman = Callable[..., Awaitable[tuple[int, str]]]
"""Runs podman with arguments to its end: (exit code, all output)."""


class Container:
    """One container. `podman`: runs podman where the container's network is."""

    def __init__(self, name: str, podman: Podman = podman) -> None:
        self.name = name
        self._podman = podman

    async def _must(self, *arguments: str) -> str:
        code, output = await self._podman(*arguments)
        assert code == 0, f"podman {arguments} ended with {code}:\n{output}"
        return output

    async def log(self) -> str:
        """All that it has written."""
        return await self._must("logs", self.name)

    async def events(self, name: str) -> list[dict[str, Any]]:
        """The events of one name in its log. Every line must be JSON."""
        entries = [json.loads(line) for line in (await self.log()).splitlines()]
        return [entry for entry in entries if entry["event"] == name]

    async def inspect(self) -> str:
        """All that the engine tells of it, as JSON."""
        return await self._must("inspect", self.name)

    async def run(self, *command: str) -> tuple[int, str]:
        """Run a command in it: (exit code, output)."""
        return await self._podman("exec", self.name, *command)

    async def healthy(self) -> bool:
        """What the image's health check says."""
        code, output = await self._podman("healthcheck", "run", self.name)
        assert code in (0, 1), output
        return code == 0

    async def pid(self) -> int:
        """Its first process, as seen from here."""
        return int(await self._must("inspect", "--format={{.State.Pid}}", self.name))

    async def end(self) -> int:
        """Send the image's stop signal as engines do, and return the exit code; 137 when it had to be killed."""
        await self._must("stop", "--time=40", self.name)
        return await self.code()

    async def code(self) -> int:
        """Wait until it has ended, and return the exit code."""
        return int((await self._must("wait", self.name)).split()[-1])

    async def running(self) -> bool:
        """Whether it has not ended yet."""
        return (await self._must("inspect", "--format={{.State.Running}}", self.name)).strip() == "true"

    async def until_event(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until an event has been logged `count` times, and return these."""
        found: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(PATIENCE):
                while len(found := await self.events(name)) < count:
                    assert await self.running(), await self.log()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"no {name} within {PATIENCE} s:\n{await self.log()}") from None
        return found

    async def until_said(self, text: str) -> None:
        """Wait until it has written a text."""
        await until(lambda: self._said(text))

    async def _said(self, text: str) -> bool:
        return text in await self.log()


async def until(holds: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Wait until a condition, a coroutine function, holds."""
    end = asyncio.get_running_loop().time() + patience
    while not await holds():
        assert asyncio.get_running_loop().time() < end, f"it did not happen within {patience} s"
        await asyncio.sleep(0.1)


class Engine:
    """Starts containers of the image; what it has started is removed at its end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def start(
        self,
        *arguments: str,
        options: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
        image: str = IMAGE,
    ) -> Container:
        """Start a container with the arguments of its entry point. `options`: those of `podman run`."""
        name = f"tablefeed-tests-{uuid.uuid4().hex[:12]}"
        variables = [f"--env={key}={value}" for key, value in (environ or {}).items()]
        self._stack.push_async_callback(podman, "rm", "--force", "--volumes", "--time=0", name)
        started = ("run", "--detach", f"--name={name}", *_LIMITS, *options, *variables, image, *arguments)
        code, output = await podman(*started)
        assert code == 0, f"podman {started} ended with {code}:\n{output}"
        return Container(name)


@asynccontextmanager
async def engine() -> AsyncIterator[Engine]:
    """An engine whose containers end with the block, the last one first."""
    async with AsyncExitStack() as stack:
        yield Engine(stack)


CONFINED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    *(f"--volume=/dev/null:/usr/bin/{shell}:ro" for shell in ("dash", "bash")),
)
"""A root file system that cannot be written, no capabilities, and no shell."""


__all__ = [
    "CONFINED",
    "IMAGE",
    "USER",
    "Container",
    "Engine",
    "UnavailableError",
    "build_image",
    "ended",
    "engine",
    "import_image",
    "until",
    "volume",
    "why_not",
]
