"""The command `tablefeed` and what all its subcommands share: options, errors, exit codes."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from tablefeed import __version__
from tablefeed.errors import Exit, Fatal

_STDERR = 2
CLOSED_PIPE = 141
"""What a shell shows of a program that SIGPIPE has ended: 128 + 13."""

COMMANDS = {
    "run": "Watch directories and deliver what is dropped there.",
    "check": "Try all that a delivery needs, and deliver nothing.",
    "status": "Show what the daemon is doing, and whether all is well.",
    "history": "Show what happened to each file, the latest last.",
    "retry": "Put refused files back, so that they are tried again.",
    "init": "Ask for what is needed, try it, and write a configuration.",
    "ledger": "Move the ledger to another database.",
    "config": "A sample file, the schema for editors, and what is in force.",
    "push": "Deliver files now, without the daemon, its queue and its archive.",
    "sandbox": "Serve a stand-in for ProcessMind and its object store.",
    "demo": "Show the whole way of a file, without an account.",
}
"""Each command, which its module in `commands` makes, and the first line of its help."""


class Commands(TyperGroup):
    """Imports a command when it is called, since most of them need much that the others do not."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Read the arguments, which may already print help."""
        with _told_of_output():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with _told_of_output():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The name of the command, the command itself, and its arguments."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and _made(str(listed.name)), rest


@contextmanager
def _told_of_output() -> Iterator[None]:
    """Write out what was printed, and end as the shell's own tools do when nobody reads it."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
        _discard_output()
        raise Fatal(
            f"the output cannot be written: {error.strerror}", "Send it to another place", Exit.CANNOT_CREATE
        ) from None


def _discard_output() -> None:
    """Let the interpreter not try again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_output() -> None:
    """Names of files hold characters that a terminal's encoding may lack, and that is no reason to fail."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed, so nobody wants it
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
            setattr(sys, name, stream)
        stream.reconfigure(errors="backslashreplace")


def _fill_gaps() -> None:
    """Open what was closed of the first three descriptors: whatever got such a number would be taken for a terminal.

    libuv ends the process when it is to close one of them.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)


def _made(name: str) -> Any:
    made = getattr(import_module(f"tablefeed.cli.commands.{name}"), name)
    if isinstance(made, typer.Typer):
        return get_command(made)
    one = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    one.command(name)(made)
    return get_command(one)


app = typer.Typer(
    cls=Commands,
    name="tablefeed",
    help="Watches export directories and delivers every file to its ProcessMind datatable.",
    epilog=(
        "Exit codes: 0 done, 1 something was not delivered, 2 wrong usage, 69 API or PostgreSQL unavailable, "
        "73 cannot create, 77 no permission, 78 configuration."
    ),
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _listed() -> None:
    raise AssertionError("`Commands` puts the command itself in the place of this")


for _name, _summary in COMMANDS.items():
    app.command(_name, help=_summary)(_listed)


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


def _end_when_asked() -> None:
    """The kernel throws away signals that process 1 does not handle: a container could not be stopped at its start."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def main() -> None:
    """Run a command; what it cannot go on after becomes one clear message and an exit code."""
    if os.getpid() == 1:
        _end_when_asked()
    _fill_gaps()
    _prepare_output()
    try:
        app()
    except Fatal as error:
        sys.stderr.write(f"tablefeed: {error}\n")
        sys.exit(error.exit_code)
