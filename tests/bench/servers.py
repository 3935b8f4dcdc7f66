"""nginx as the stub of the presign endpoint and as the sink, run by the benchmark on loopback."""

import asyncio
import os
import shutil
import signal
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from support.ports import free_port
from support.stores import certificate

NGINX_REMEDY = "nginx is missing: apt-get install nginx-light"
_PATIENCE = 20.0
LIFETIME = 604_800
"""Seconds that the URLs of the stub are valid: the most that a signature of this scheme may say."""


def nginx_binary() -> str | None:
    """Where nginx is; None where it is not. Debian keeps it where only root's PATH looks."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx."""

    origin: str
    """Scheme, host and port. A PUT to `/sink/NAME` stores a file."""
    base_url: str
    """Of the API: every presigned URL that it gives leads to the sink."""
    ca_file: Path | None
    """What to trust when it speaks TLS."""
    sink: Path
    """Where the files arrive."""

    def presign_url(self, name: str, size: int) -> str:
        """What is asked for the URL of a file."""
        return (
            f"{self.base_url}/tenant/tenant-123/datatable/table-456/uploads/presignedurl"
            f"?datasetid=dataset-1&filename={name}&filesize={size}&filelastmodified=1700000000000"
        )

    def clear(self) -> int:
        """Remove what has arrived; returns how many files that were."""
        names = [entry.path for entry in os.scandir(self.sink)]
        for name in names:
            os.unlink(name)
        return len(names)


def _maps(origin: str, urls: Mapping[str, str], told: Mapping[str, Mapping[int, str]]) -> str:
    """The part of the configuration that sets $presigned and what is told of files; a header without a value is not
    sent."""
    signed = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    query = f"X-Amz-Date={signed}&X-Amz-Expires={LIFETIME}&X-Amz-SignedHeaders=host"
    given = "\n".join(f'    "{name}" "{url}";' for name, url in urls.items())
    told_maps = "".join(
        f"  map $content_length ${_variable(header)} {{\n    default '';\n"
        + "".join(f"    {size} '{value}';\n" for size, value in values.items())
        + "  }\n"
        for header, values in told.items()
    )
    return f"""
  map_hash_max_size {max(2048, 4 * len(urls))};
  map_hash_bucket_size 512;
  map $arg_filename $presigned {{
    default "{origin}/sink/$arg_filename?{query}";
{given}
  }}
{told_maps}"""


def _variable(header: str) -> str:
    return f"told_{header.lower().replace('-', '_')}"


def _config(
    directory: Path, port: int, urls: Mapping[str, str], told: Mapping[str, Mapping[int, str]], *, tls: bool
) -> str:
    headers = "".join(f"      add_header {header} ${_variable(header)};\n" for header in told)
    origin = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    certificates = f"ssl_certificate {directory}/cert.pem; ssl_certificate_key {directory}/key.pem;"
    return f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes auto;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type application/json;
  keepalive_requests 100000000;
  keepalive_timeout 300s;
  client_max_body_size 0;
  client_body_temp_path {directory}/temp/body;
  proxy_temp_path {directory}/temp/proxy;
  fastcgi_temp_path {directory}/temp/fastcgi;
  scgi_temp_path {directory}/temp/scgi;
  uwsgi_temp_path {directory}/temp/uwsgi;
{_maps(origin, urls, told)}
  server {{
    listen 127.0.0.1:{port}{" ssl" if tls else ""};
    {certificates if tls else ""}
    location /sink/ {{
      root {directory};
      dav_methods PUT;
      create_full_put_path on;
{headers}    }}
    location / {{
      return 200 '{{"PreSignedUploadUrl": "$presigned"}}';
    }}
  }}
}}
"""


@asynccontextmanager
async def nginx(
    directory: Path,
    *,
    tls: bool,
    urls: Mapping[str, str] | None = None,
    told: Mapping[str, Mapping[int, str]] | None = None,
) -> AsyncIterator[Nginx]:
    """Run nginx with all that it writes in `directory`, which is made; it has ended when this has.

    `urls`: the presigned URLs of some names, whose characters are all plain; files of other names go to the sink.
    `told`: by a header's name and a file's size what it answers with; of other files it tells nothing, as is nginx's
    way.

    Raises RuntimeError where nginx is missing or does not start.
    """
    binary = nginx_binary()
    if binary is None:
        raise RuntimeError(NGINX_REMEDY)
    for name in ("sink", "temp"):
        (directory / name).mkdir(parents=True)
    ca_file = certificate(directory)[0] if tls else None
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(_config(directory, port, urls or {}, told or {}, tls=tls))
    errors = directory / "error.log"
    process = await asyncio.create_subprocess_exec(
        *(binary, "-p", str(directory), "-c", str(config), "-e", str(errors)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the benchmark, which ends it
    )
    try:
        await _accepting(process, port, errors)
        origin = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield Nginx(origin, origin, ca_file, directory / "sink")
    finally:
        await ended(process)


async def _accepting(process: Process, port: int, errors: Path) -> None:
    """Wait until somebody accepts connections there."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"nginx did not start: {errors.read_text() if errors.exists() else ''}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return


async def ended(process: Process) -> None:
    """End a server, with force when it does not listen to reason."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.wait()
