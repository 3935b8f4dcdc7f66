"""What the commands say of themselves: all of it is there, fits, and holds."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tablefeed.cli.app import COMMANDS, _made, app


def leaves() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by what is typed."""
    for name in COMMANDS:
        made = _made(name)
        commands = getattr(made, "commands", None)
        if commands:
            yield from ((f"{name} {sub}", command) for sub, command in commands.items())
        else:
            yield name, made


LEAVES = dict(leaves())


def examples(command: Any) -> list[list[str]]:
    """The words of each example that begins with `tablefeed`."""
    found = []
    text = (command.help or "").partition("Examples:")[2]
    text = re.sub(r"\s*\\\n\s+", " ", text)
    for line in text.splitlines():
        code = re.split(r"\s(?:\||>)\s|  (?=\S+ )", line.strip(), maxsplit=1)[0] if line.startswith("  ") else ""
        words = shlex.split(line.strip() if "--tenant" in line else code)
        if "tablefeed" in words:
            found.append(words[words.index("tablefeed") + 1 :])
    return found


@pytest.mark.parametrize("name", [*COMMANDS, *(name for name in LEAVES if " " in name), ""])
def test_help_fits_80_columns(name: str) -> None:
    """And it is there."""
    result = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.output.splitlines()) <= 80
    assert "\b" not in result.output


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_and_option_has_help(name: str) -> None:
    """With an example of its use, and the exit codes where there can be others than 0."""
    command = LEAVES[name]
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name}"
    assert examples(command), name
    if name not in ("config sample", "config schema"):
        assert "Exit codes: 0 " in command.help


@pytest.mark.parametrize("name", LEAVES)
def test_examples_can_be_typed(name: str) -> None:
    """No example uses an option or a value that there is not."""
    for words in examples(LEAVES[name]):
        called = next(it for it in (" ".join(words[:2]), words[0]) if it in LEAVES)
        rest = words[len(called.split()) :]
        with LEAVES[called].make_context(called, rest):
            pass


def test_the_list_says_what_each_command_says_itself() -> None:
    """The list is made without the commands, so that it is quick."""
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
    for name, summary in COMMANDS.items():
        assert (_made(name).help or "").splitlines()[0] == summary
        assert f" {summary}\n" in listed, "it is cut off at 80 columns"
    assert list(COMMANDS) == list(get_command(app).commands)  # type: ignore[attr-defined]


def test_without_a_command_there_is_help() -> None:
    """With all commands in it."""
    output = CliRunner().invoke(app, []).output
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", output, re.MULTILINE)


@pytest.mark.parametrize(("typed", "meant"), [("statsu", "status"), ("histroy", "history"), ("config shwo", "show")])
def test_a_typing_error_is_told_with_what_was_meant(typed: str, meant: str) -> None:
    """Of all commands the nearest."""
    result = CliRunner().invoke(app, typed.split())
    assert result.exit_code == 2
    assert f"Did you mean '{meant}'?" in result.output
