"""`tablefeed status`: the picture once, on the screen for as long as somebody looks, or for programs.

What draws it is imported where it is used: programs ask often, and do without.
"""

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path

import typer

from tablefeed.cli.looking import look
from tablefeed.errors import Exit

ATTENTION = Exit.UNDELIVERED
"""Ends `status` when somebody should look."""


def show(config: Path | None) -> None:
    """Draw what there is to see, and end with 0 when all is well."""
    from tablefeed.cli.console import Output
    from tablefeed.cli.picture import drawn

    picture = look(config, os.environ)
    console = Output()
    console.print(drawn(picture, console.width, bars=console.is_terminal))
    sys.exit(Exit.DONE if picture.ok else ATTENTION)


def show_as_json(config: Path | None) -> None:
    """The same as one JSON object."""
    picture = look(config, os.environ)
    sys.stdout.write(json.dumps(picture.plain(), ensure_ascii=False) + "\n")
    sys.exit(Exit.DONE if picture.ok else ATTENTION)


def watch(config: Path | None) -> None:
    """Draw it anew every second until Ctrl-C."""
    from tablefeed.cli import live
    from tablefeed.cli.console import Output

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
