"""`tablefeed ledger`."""

from typing import Annotated

import typer

ledger = typer.Typer(
    help="Move the ledger to another database.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@ledger.callback()
def _of_several() -> None:
    """With one command alone, Typer would leave out its name."""


@ledger.command("copy", short_help="Copy all of it, for good, and compare both sides.")
def copy(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URL",
            envvar="TABLEFEED_LEDGER_FROM",
            help="The ledger to copy, as [ledger] url names it.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URL",
            envvar="TABLEFEED_LEDGER_TO",
            help="The one to fill: an empty database, a file that is not there yet, or an earlier copy.",
            show_default=False,
        ),
    ],
    node: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="To PostgreSQL: whose files they are, as [fleet] node names it; else the name of this host. "
            "To SQLite: whose files are copied; else all.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Copy a ledger into another database, and compare both sides.

    Stop the daemons first, run this as the user that runs them, then set [ledger] url and start them again. The source
    is not changed. A copy that was interrupted goes on when this is repeated, and a daemon refuses it until then. Files
    that were in flight are queued again, and are sent to the same objects.

    A password does not belong in an argument, which everybody sees: give that URL in $TABLEFEED_LEDGER_FROM or
    $TABLEFEED_LEDGER_TO, or the password in $PGPASSWORD or the file that $PGPASSFILE names.

    Examples:

    \b
      tablefeed ledger copy --from sqlite:////var/lib/tablefeed/ledger.db \\
          --to postgresql+psycopg://tablefeed@db/tablefeed
      tablefeed ledger copy --from postgresql://tablefeed@db/tablefeed \\
          --to sqlite:////var/lib/tablefeed/ledger.db --node plant-7

    Exit codes: 0 copied, and both sides are the same; 1 they are not; 2 wrong usage; 69 PostgreSQL cannot be reached;
    73 a ledger is in use, cannot be made, or holds something else; 77 no permission.
    """
    from tablefeed.cli.ledgercopy import copy as work

    typed = {name for name in ("source", "target") if str(ctx.get_parameter_source(name)).endswith("COMMANDLINE")}
    work(source, target, node, typed)
