"""`tablefeed init`."""

from pathlib import Path
from typing import Annotated

import typer

from tablefeed.cli.options import Config

PRODUCTION = "https://api.processmind.com"


def init(
    config: Config = None,
    tenant: Annotated[str | None, typer.Option(help="Your tenant's id.", show_default=False)] = None,
    datatable: Annotated[str | None, typer.Option(help="The datatable's id.", show_default=False)] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Where the export drops its files.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the feed.", show_default=False)] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="The file that holds the API key. Without it $TABLEFEED_API_KEY is taken, or you are asked.",
            show_default=False,
        ),
    ] = None,
    base_url: Annotated[str, typer.Option(help="Where the API is.")] = PRODUCTION,
    force: Annotated[bool, typer.Option("--force", help="Write over a configuration that is there.")] = False,
) -> None:
    """Ask for what is needed, try it, and write a configuration.

    The file has one feed and a comment for every key, and only its owner may read it. A key that is typed in is written
    beside it, as api-key. With all flags given nothing is asked, so that it works without a terminal too. For the
    systemd service, run it as root: it writes where the service looks.

    Examples:

    \b
      tablefeed init
      tablefeed init --tenant tenant-123 --datatable table-456 \\
          --directory /srv/exports/orders --api-key-file /etc/tablefeed/api-key

    Exit codes: 0 written, 2 something was not given where nobody could be asked, 69 the API is unavailable,
    73 the file cannot be written, 78 something that was given is wrong.
    """
    from tablefeed.cli.init import Answers
    from tablefeed.cli.init import init as work

    work(config, Answers(tenant, datatable, directory, name, api_key_file, base_url), force=force)
