"""`tablefeed retry`."""

from typing import Annotated

import typer

from tablefeed.cli.options import Config, complete_feed


def retry(
    config: Config = None,
    ids: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="ID…", help="Files by their ids, as `tablefeed history` shows them.", show_default=False
        ),
    ] = None,
    feed: Annotated[
        str | None,
        typer.Option(help="All refused files of this feed.", show_default=False, autocompletion=complete_feed),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All refused files.")] = False,
) -> None:
    """Put refused files back, so that they are tried again.

    Each goes to where it was dropped. Do this when the reason is mended that stands beside it in failed/. The daemon
    may run or not; nothing is overwritten. Files that wait for their next try need no help. In a fleet, what lies in a
    directory of another node is told with that node's name: run this there.

    Examples:

    \b
      tablefeed history --state rejected
      tablefeed retry 8 9
      tablefeed retry --feed orders

    Exit codes: 0 done, 1 a file could not be put back, 69 PostgreSQL is away, 73 there is no ledger, or it
    is damaged, 77 no permission, 78 configuration.
    """
    from tablefeed.cli.retry import retry as work

    work(config, ids, feed, every=every)
