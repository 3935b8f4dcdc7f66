"""`tablefeed run`: the daemon, or one pass for cron."""

import os
import sys
from typing import Annotated

import typer

from tablefeed.cli.options import Config, run_async, start
from tablefeed.service import Left, Service


def run(
    config: Config = None,
    once: Annotated[
        bool, typer.Option("--once", help="Deliver what is there, then end: 0 when all was delivered, else 1.")
    ] = False,
) -> None:
    """Watch the configured directories and deliver what is dropped there, until SIGTERM or SIGINT."""
    settings, keys = start(config)
    service = Service(settings, os.environ, keys)
    if not once:
        run_async(service.serve())
        return
    left = run_async(service.deliver_once())
    _tell(left)
    sys.exit(left.exit_code)


def _tell(left: Left) -> None:
    for feed, reason in left.troubles.items():
        typer.echo(f"not delivered: feed {feed}: {reason}", err=True)
    for feed, path, reason in left.files:
        typer.echo(f"not delivered: {feed}: {path!a}: {reason}", err=True)
