"""`tablefeed push`."""

from pathlib import Path
from typing import Annotated

import typer

from tablefeed.cli.options import Config, complete_feed


def push(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="The files to deliver. They are only read.")],
    feed: Annotated[str, typer.Option(help="The feed whose datatable gets them.", autocompletion=complete_feed)],
    config: Config = None,
) -> None:
    """Deliver files now, without the daemon, its queue and its archive.

    For single files by hand. They stay where they are and do not show in the history. What may pass is tried a few
    times; on a terminal there are progress bars.

    Examples:

    \b
      tablefeed push orders-2026-03.csv --feed orders
      tablefeed push /mnt/backfill/*.csv --feed orders

    Exit codes: 0 all were delivered, 1 one was not, 77 no permission, 78 configuration.
    """
    from tablefeed.cli.push import push as work

    work(files, feed, config)
