"""Completion in real shells: commands, options, states, and the names of feeds."""

import asyncio
import os
import pty
import shutil
import sys
from pathlib import Path

import pytest

from support.daemon import KEY, clean_environ
from support.patience import PATIENCE

PROGRAM = Path(sys.executable).with_name("tablefeed")

LINES = {
    "tablefeed ": {"run", "status", "history", "config"},
    "tablefeed config s": {"sample", "schema", "show"},
    "tablefeed status --w": {"--watch"},
    "tablefeed history --feed ": {"orders", "invoices"},
    "tablefeed push a.csv --feed o": {"orders"},
    "tablefeed history --state re": {"rejected"},
}
"""What is typed, and what is offered among others."""


def needs(shell: str) -> pytest.MarkDecorator:
    """A shell, and the command as it is installed."""
    missing = [it for it in (shell, str(PROGRAM)) if shutil.which(it) is None]
    return pytest.mark.skipif(bool(missing), reason=f"there is no {', '.join(missing)}")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home with a configuration, one of whose names would be a command to a shell."""
    config = tmp_path / "tablefeed.toml"
    key = tmp_path / "key"  # it is not there: nobody may need it
    feeds = "".join(f"[[feeds]]\nname = '{name}'\n" for name in ("orders", "invoices", "in$(touch hacked)", "in`id`"))
    config.write_text(f"[api]\napi_key_file = '{key}'\n{feeds}")
    (tmp_path / "home").mkdir()
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    return clean_environ(HOME=str(tmp_path / "home"), PATH=path, TABLEFEED_CONFIG=str(config), TABLEFEED_API_KEY=KEY)


async def shell(environ: dict[str, str], cwd: Path, *command: str, script: str = "") -> tuple[str, str]:
    """What a shell prints, on both channels."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environ,
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(90):
        out, err = await process.communicate(script.encode())
    return out.decode(), err.decode()


def offered(text: str) -> dict[str, set[str]]:
    """The words that were offered for each line, from what the shells below print."""
    found: dict[str, set[str]] = {}
    for part in text.split("LINE ")[1:]:
        line, *words = part.split("\n")
        found[line] = {word.split("\t")[0] for word in words if word}
    return found


def assert_offered(text: str) -> None:
    """All that should be offered is, and nothing that does not begin like what was typed."""
    found = offered(text)
    for line, wanted in LINES.items():
        assert wanted <= found[line], (line, found[line])
        typed = line.rpartition(" ")[2]
        assert all(word.startswith(typed) for word in found[line]), (line, found[line])
    assert found["tablefeed history --feed "] == {"orders", "invoices"}


@needs("bash")
async def test_bash(environ: dict[str, str], tmp_path: Path) -> None:
    """As `--install-completion` leaves it; nothing is printed but what is offered."""
    out, err = await shell(environ, tmp_path, "bash", "-c", "tablefeed --install-completion; true")
    assert "bash completion installed" in out, err
    lines = [f"words='{line}'; offer" for line in LINES]
    script = """
        source "$HOME/.bashrc"
        offer() {
            echo "LINE $words"
            read -ra COMP_WORDS <<< "$words"
            [[ $words == *' ' ]] && COMP_WORDS+=("")
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _tablefeed_completion tablefeed
            printf '%s\\n' "${COMPREPLY[@]}"
        }
    """
    out, err = await shell(environ, tmp_path, "bash", "--norc", script=script + "\n".join(lines) + "\n")
    assert err == ""
    assert_offered(out)
    assert not (tmp_path / "hacked").exists()


@needs("fish")
async def test_fish(environ: dict[str, str], tmp_path: Path) -> None:
    """Fish itself tells what it would offer."""
    await shell(environ, tmp_path, "fish", "-c", "tablefeed --install-completion; true")
    script = "\n".join(f"echo 'LINE {line}'; complete --do-complete '{line}'" for line in LINES)
    out, err = await shell(environ, tmp_path, "fish", "--private", script=script)
    assert err == ""
    assert_offered(out)
    assert not (tmp_path / "hacked").exists()


@needs("zsh")
async def test_zsh(environ: dict[str, str], tmp_path: Path) -> None:
    """A Tab on a terminal completes the word."""
    await shell(environ, tmp_path, "zsh", "-c", "tablefeed --install-completion; true")
    (tmp_path / "home" / ".zshrc").write_text("PS1='> '; fpath+=~/.zfunc; autoload -Uz compinit; compinit -u\n")
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *("zsh", "-i"), stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path, env=environ | {"TERM": "dumb"},
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    said = ""
    news = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> None:
        nonlocal said
        try:
            said += os.read(master, 65536).decode(errors="replace")
        except OSError:
            loop.remove_reader(master)
        news.set()

    async def until(text: str) -> None:
        nonlocal said
        async with asyncio.timeout(PATIENCE):
            while text not in said:
                news.clear()
                await news.wait()
        said = said.partition(text)[2]

    loop.add_reader(master, read)
    try:
        await until("> ")
        # With Typer's script, a shell's first Tab only loads the completion.
        os.write(master, b"tablefeed hist\t")
        await until("\a")
        for typed, completed in {
            "tablefeed hist": "tablefeed history ",
            "tablefeed retry --feed ord": "--feed orders ",
            "tablefeed history --state rej": "--state rejected ",
        }.items():
            os.write(master, b"\x15\n")
            await until("> ")
            os.write(master, typed.encode() + b"\t")
            await until(completed)
    finally:
        loop.remove_reader(master)
        process.kill()
        await process.wait()
        os.close(master)
    assert "Traceback" not in said
    assert not (tmp_path / "hacked").exists()


@needs("bash")
@pytest.mark.parametrize("text", [None, "[[feeds", 'feeds = "x"', "[[feeds]]\nname = 1", "\xff"])
async def test_a_configuration_that_cannot_be_read_offers_nothing(
    environ: dict[str, str], tmp_path: Path, text: str | None
) -> None:
    """And says nothing: nobody has asked anything yet."""
    config = tmp_path / "tablefeed.toml"
    config.unlink()
    if text is not None:
        config.write_bytes(text.encode("latin-1"))
    words = {"COMP_WORDS": "tablefeed history --feed ", "COMP_CWORD": "3", "_TABLEFEED_COMPLETE": "complete_bash"}
    out, err = await shell(environ | words, tmp_path, str(PROGRAM))
    assert (out.strip(), err) == ("", "")
