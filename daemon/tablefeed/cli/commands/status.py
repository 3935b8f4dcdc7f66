"""`tablefeed status`."""

import os
import sys
from typing import Annotated

import typer

from tablefeed.cli.alive import why_not_alive
from tablefeed.cli.options import Config
from tablefeed.errors import Exit


def status(
    config: Config = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all that is known as one JSON object, with `source` and `ok` in it.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Draw it anew every second until Ctrl-C, on a terminal.")
    ] = False,
    alive: Annotated[
        bool,
        typer.Option(
            "--alive",
            help="Print nothing and end with 0 when the daemon lives, else one line and 1: for health checks.",
        ),
    ] = False,
) -> None:
    """Show what the daemon is doing, and whether all is well.

    The daemon is asked over HTTP, at [http] listen of the configuration. Where it does not answer, or does not run, its
    ledger tells how much waits and what was delivered last.

    Examples:

    \b
      tablefeed status                      is all well?
      tablefeed status --watch              the same, live
      tablefeed status --json | jq .totals  for programs
      tablefeed status --alive              for health checks

    Exit codes: 0 all is well; 1 something needs attention: a feed is blocked, overdue or waits for a server that fails,
    or no daemon answers. Feeds that somebody has paused and files that were refused do not count; --json tells them.
    With --watch: 0. Where no daemon answers, and no ledger either: 69 PostgreSQL is away, 73 the ledger is damaged, 77
    no permission, 78 configuration.
    """
    if as_json + watch + alive > 1:
        raise typer.BadParameter("give one of --json, --watch and --alive")
    if alive:
        reason = why_not_alive(config, os.environ)
        if reason:
            sys.stderr.write(f"tablefeed: {reason}\n")
        sys.exit(Exit.UNDELIVERED if reason else Exit.DONE)
    # A health check does without this, and is to be quick.
    from tablefeed.cli import status as work

    if watch:
        work.watch(config)
    elif as_json:
        work.show_as_json(config)
    else:
        work.show(config)
