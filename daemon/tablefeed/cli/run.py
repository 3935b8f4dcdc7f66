"""`tablefeed run`: the daemon, or one pass for cron."""

import os
import sys
from functools import partial
from typing import Annotated

import typer

from tablefeed.cli.options import Config, run_async, start
from tablefeed.config import load
from tablefeed.service import Service


def run(
    config: Config = None,
    once: Annotated[
        bool,
        typer.Option(
            "--once",
            help="Deliver what is there, then end: 0 when all was delivered, else 1. "
            "What cannot be delivered within half a minute without progress is left for the next time.",
        ),
    ] = False,
) -> None:
    """Watch directories and deliver what is dropped there.

    It runs until SIGTERM or SIGINT; the first drains, a second ends at once. SIGHUP reads the feeds anew.
    """
    settings, keys = start(config)
    service = Service(settings, os.environ, keys, partial(load, config, os.environ))
    if not once:
        run_async(service.serve())
        return
    sys.exit(run_async(service.deliver_once()).exit_code)
