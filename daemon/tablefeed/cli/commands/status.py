"""`tablefeed status`: what the daemon is doing, and whether all is well."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tablefeed.cli.alive import why_not_alive
from tablefeed.cli.options import Config
from tablefeed.errors import Exit

ATTENTION = Exit.UNDELIVERED
"""Ends `status` when somebody should look."""


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
        sys.exit(ATTENTION if reason else Exit.DONE)
    # A health check does without these, and is to be quick.
    from tablefeed.cli.looking import look

    if watch:
        _watch(config)
        return
    picture = look(config, os.environ)
    if as_json:
        sys.stdout.write(json.dumps(picture.plain(), ensure_ascii=False) + "\n")
    else:
        from tablefeed.cli.console import Output
        from tablefeed.cli.picture import drawn

        console = Output()
        console.print(drawn(picture, console.width, bars=console.is_terminal))
    sys.exit(Exit.DONE if picture.ok else ATTENTION)


def _watch(config: Path | None) -> None:
    import time
    from datetime import datetime

    from tablefeed.cli import live
    from tablefeed.cli.console import Output
    from tablefeed.cli.looking import look

    console = Output()
    if not console.is_terminal or console.is_dumb_terminal:
        raise typer.BadParameter(
            "needs a terminal that can move its cursor; elsewhere use `tablefeed status` or --json",
            param_hint="--watch",
        )
    live.watch(
        lambda: look(config, os.environ, live.PATIENCE),
        console,
        sleep=time.sleep,
        clock=lambda: datetime.now().astimezone(),
    )
