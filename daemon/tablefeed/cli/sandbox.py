"""`tablefeed sandbox`: the stand-in for ProcessMind and its object store."""

from pathlib import Path

import typer

from tablefeed.cli.options import parsed, quiet_logs, run_async
from tablefeed.errors import Exit, Fatal
from tablefeed.sandbox.objects import StoredObject
from tablefeed.sandbox.server import SandboxSettings, running
from tablefeed.signals import Signals
from tablefeed.units import format_size, parse_duration


def sandbox(listen: str, data: Path, api_key: str, tenant: str, url_lifetime: str, *, strict: bool) -> None:
    """Serve until a signal."""
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
