"""`tablefeed sandbox`: the stand-in for ProcessMind and its object store."""

from pathlib import Path
from typing import Annotated

import typer

from tablefeed.cli.options import parsed, quiet_logs, run_async
from tablefeed.errors import Exit, Fatal
from tablefeed.sandbox.objects import StoredObject
from tablefeed.sandbox.server import SandboxSettings, running
from tablefeed.signals import Signals
from tablefeed.units import format_size, parse_duration


def sandbox(
    listen: Annotated[str, typer.Option(help="Address and port to serve on.")] = "127.0.0.1:8800",
    data: Annotated[Path, typer.Option(help="Where objects are kept, as plain files.")] = Path("sandbox-data"),
    api_key: Annotated[
        str,
        typer.Option(
            envvar="TABLEFEED_SANDBOX_API_KEY",
            help="The key that callers must send. Given as an option it shows in the list of processes.",
        ),
    ] = "sandbox-key",
    tenant: Annotated[str, typer.Option(help="The id of the one tenant.")] = "tenant-123",
    url_lifetime: Annotated[str, typer.Option(help="How long presigned URLs are valid at most, like 30s.")] = "1h",
    strict: Annotated[bool, typer.Option("--strict", help="Demand all query parameters of the presign call.")] = False,
) -> None:
    """Serve a stand-in for ProcessMind and its object store.

    It runs until SIGTERM or SIGINT.

    Signatures and expiry are real. Objects appear as files in DATA/objects, each complete or not at all.
    """
    host, port = parsed("--listen", _address, listen)
    settings = SandboxSettings(
        data=data,
        api_key=api_key,
        tenant_id=tenant,
        url_lifetime=parsed("--url-lifetime", parse_duration, url_lifetime),
        strict=strict,
    )
    quiet_logs()
    try:
        run_async(_serve(settings, host, port))
    except OSError as error:
        raise Fatal(f"--data {data} cannot be used: {error.strerror}", "Name a directory", Exit.CANNOT_CREATE) from None


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError('write it as "127.0.0.1:8800"')
    return host.strip("[]"), int(port)


async def _serve(settings: SandboxSettings, host: str, port: int) -> None:
    signals = Signals()
    async with signals.caught(), running(settings, host, port, on_object=_tell) as sandbox:
        typer.echo(f"The sandbox serves the API at {sandbox.base_url}, tenant {settings.tenant_id}.")
        typer.echo(f"Objects appear in {sandbox.objects}. End it with Ctrl-C.")
        await signals.drain.wait()


def _tell(stored: StoredObject) -> None:
    typer.echo(f"received {stored.path.name!a} ({format_size(stored.size)}, MD5 {stored.md5})")
