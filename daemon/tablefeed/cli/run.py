"""`tablefeed run`: the daemon, or one pass for cron."""

import gc
import os
import sys
from functools import partial
from pathlib import Path

from tablefeed.cli.options import run_async, start
from tablefeed.config import load
from tablefeed.service import Service

COLLECTED_AFTER = 20_000
"""New objects after which Python looks for cycles among them."""


def run(config: Path | None, *, once: bool) -> None:
    """Deliver until a signal; with `once`, what is there."""
    settings, keys = start(config)
    service = Service(settings, os.environ, keys, partial(load, config, os.environ))
    _collect_seldom()
    if not once:
        run_async(service.serve())
        return
    sys.exit(run_async(service.deliver_once()).exit_code)


def _collect_seldom() -> None:
    """Look for cycles less often than Python does by itself.

    What a delivery makes is freed by its reference counts. To look for cycles among it again and again took a tenth of
    the event loop's time (`make bench`, row 1).
    """
    gc.freeze()
    gc.set_threshold(COLLECTED_AFTER, 20, 20)
