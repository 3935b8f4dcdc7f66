"""The command `tablefeed` and what all its subcommands share: options, errors, exit codes."""

import sys
from typing import Annotated

import typer

from tablefeed import __version__
from tablefeed.cli import check, config, demo, history, init, push, retry, run, sandbox
from tablefeed.errors import Fatal

app = typer.Typer(
    name="tablefeed",
    help="Watches export directories and delivers every file to its ProcessMind datatable.",
    epilog=(
        "Exit codes: 0 done, 1 something was not delivered, 2 wrong usage, 69 API unavailable, "
        "73 cannot create, 77 no permission, 78 configuration."
    ),
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("check")(check.check)
app.command("history")(history.history)
app.command("retry")(retry.retry)
app.command("init")(init.init)
app.add_typer(config.config, name="config")
app.command("push")(push.push)
app.command("sandbox")(sandbox.sandbox)
app.command("demo")(demo.demo)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it with the option's value
    if wanted:
        typer.echo(f"tablefeed {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command; what it cannot go on after becomes one clear message and an exit code."""
    try:
        app()
    except Fatal as error:
        sys.stderr.write(f"tablefeed: {error}\n")
        sys.exit(error.exit_code)
