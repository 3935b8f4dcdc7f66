"""`tablefeed sandbox`."""

from pathlib import Path
from typing import Annotated

import typer


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

    To try a configuration or to develop against, without an account. Signatures and expiry are real. Objects appear as
    files in DATA/objects, each complete or not at all. It runs until SIGTERM or Ctrl-C.

    Examples:

    \b
      tablefeed sandbox
      tablefeed sandbox --listen 127.0.0.1:8800 --url-lifetime 30s

    Exit codes: 0 it was ended, 73 the port or the directory cannot be used.
    """
    from tablefeed.cli.sandbox import sandbox as work

    work(listen, data, api_key, tenant, url_lifetime, strict=strict)
