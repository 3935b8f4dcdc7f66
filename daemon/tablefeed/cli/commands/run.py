"""`tablefeed run`."""

from typing import Annotated

import typer

from tablefeed.cli.options import Config


def run(
    config: Config = None,
    once: Annotated[
        bool,
        typer.Option(
            "--once",
            help="Deliver what is there, then end. What makes no progress for half a minute, because a server is down "
            "for example, is left for the next time.",
        ),
    ] = False,
) -> None:
    """Watch directories and deliver what is dropped there.

    This is the daemon, for systemd and containers; with --once it is one pass, for cron. It logs to standard error.
    SIGTERM and Ctrl-C let uploads in flight finish, a second one ends at once; SIGHUP reads the feeds anew. Run
    `tablefeed check` first.

    Examples:

    \b
      tablefeed run
      tablefeed run --once --config /etc/tablefeed/nightly.toml

    Exit codes: 0 it was ended, or with --once all was delivered; 1 with --once something was not; 69 PostgreSQL
    is away; 73 the ledger or the node's name is in use, the ledger is damaged, or the port is taken; 77 no permission;
    78 configuration.
    """
    from tablefeed.signals import keep_reload

    keep_reload()
    from tablefeed.cli.run import run as work

    work(config, once=once)
