"""`tablefeed status`: what the daemon is doing, and whether all is well."""

import os
import sys
from typing import Annotated

import typer

from tablefeed.cli.alive import why_not_alive
from tablefeed.cli.options import Config
from tablefeed.errors import Exit


def status(
    config: Config = None,
    alive: Annotated[
        bool, typer.Option("--alive", help="Print nothing and end with 0 when the daemon lives: for health checks.")
    ] = False,
) -> None:
    """Show what the daemon is doing, and whether all is well."""
    if alive:
        reason = why_not_alive(config, os.environ)
        if reason:
            sys.stderr.write(f"tablefeed: {reason}\n")
        sys.exit(Exit.UNDELIVERED if reason else Exit.DONE)
