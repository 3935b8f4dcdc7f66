"""`tablefeed history`."""

from typing import Annotated

import typer

from tablefeed.cli.options import Config, complete_feed
from tablefeed.model import State

SHOWN = 100
"""Records in a table when no limit is given."""


def history(
    config: Config = None,
    feed: Annotated[
        str | None,
        typer.Option(help="Only files of this feed.", show_default=False, autocompletion=complete_feed),
    ] = None,
    state: Annotated[State | None, typer.Option(help="Only files in this state.", show_default=False)] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only what happened since then: a date or time such as 2026-03-01 or 2026-03-01T22:00 (local time, "
            "unless it ends in Z), or an age such as 12h or 7d.",
            show_default=False,
        ),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            help="In a fleet, only files in the directories of this node; those of shared directories are nobody's.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help=f"At most so many, the latest. Without it {SHOWN}, and with --json all.", min=1, show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with all that is known.")] = False,
) -> None:
    """Show what happened to each file, the latest last.

    It reads the ledger, so the daemon may run or not. With --json each delivered file has the receipt that proves it:
    bytes, MD5, ETag, HTTP status, request id and times. In a fleet, `node` is where it lies, empty for a shared
    directory, and `sender` the node that delivered it.

    Examples:

    \b
      tablefeed history --since 12h
      tablefeed history --feed orders --state rejected
      tablefeed history --json --since 2026-03-01 | jq -r .path

    Exit codes: 0 done, also when nothing fits; 69 PostgreSQL is away; 73 there is no ledger, or it is damaged;
    77 no permission; 78 configuration.
    """
    from tablefeed.cli.history import history as work

    work(config, feed=feed, state=state, since=since, node=node, limit=limit, as_json=as_json)
