"""`tablefeed run`: the daemon, or one pass for cron."""

import os
import sys
from functools import partial
from pathlib import Path

from tablefeed.cli.options import run_async, start
from tablefeed.config import load
from tablefeed.service import Service


def run(config: Path | None, *, once: bool) -> None:
    """Deliver until a signal; with `once`, what is there."""
    settings, keys = start(config)
    service = Service(settings, os.environ, keys, partial(load, config, os.environ))
    if not once:
        run_async(service.serve())
        return
    sys.exit(run_async(service.deliver_once()).exit_code)
