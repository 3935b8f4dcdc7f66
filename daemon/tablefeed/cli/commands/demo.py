"""`tablefeed demo`."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    once: Annotated[bool, typer.Option("--once", help="End with 0 as soon as all samples are archived.")] = False,
    keep: Annotated[
        Path | None,
        typer.Option(help="Work in this directory and keep it; else in a temporary one.", show_default=False),
    ] = None,
) -> None:
    """Show the whole way of a file, without an account.

    It runs the sandbox, writes sample exports, and delivers them with the real daemon, whose page it names, until
    Ctrl-C. It needs no configuration and leaves nothing behind.

    Examples:

    \b
      tablefeed demo
      tablefeed demo --once --keep ./demo

    Exit codes: 0 all samples were archived, or it was ended; 1 one was not; 73 the directory cannot be used.
    """
    from tablefeed.cli.demo import demo as work

    work(keep, once=once)
