"""`tablefeed init`: asks for what a configuration needs, tries it, and writes the file."""

import os
import re
import shlex
import sys
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import typer

from tablefeed.archive.directories import probe_directories
from tablefeed.cli.commands.init import PRODUCTION
from tablefeed.cli.options import parsed, quiet_logs, run_async
from tablefeed.cli.words import shown
from tablefeed.client import ProcessMindClient
from tablefeed.config import DEFAULT_PATH, KeyFile, KeyVariable, load, to_feeds
from tablefeed.config.addresses import BaseUrl
from tablefeed.config.environment import CONFIG_VARIABLE, KEY_VARIABLE
from tablefeed.config.fields import FeedName, Identifier, checked
from tablefeed.config.sample import sample
from tablefeed.errors import DeliveryError, Exit, Fatal, KeyRefused, Transient
from tablefeed.http import is_plain_to_afar
from tablefeed.processmind import Dataset

T = TypeVar("T")

INTERRUPTED = 130
"""What a shell shows of a program that Ctrl-C has ended: 128 + 2."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the flags say; None where it is to be asked."""

    tenant: str | None
    datatable: str | None
    directory: Path | None
    name: str | None
    key_file: Path | None
    base_url: str


def init(config: Path | None, answers: Answers, *, force: bool) -> None:
    """Ask for what `answers` leaves open, try it, and write the file, and the key where it was typed in."""
    quiet_logs()
    file = config or Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_PATH)
    if os.path.lexists(file) and not force:
        raise Fatal(f"{file} is there already", "Edit it, name another with --config, or write over it with --force")
    _assert_place(file)
    base_url = parsed("--base-url", partial(checked, BaseUrl), answers.base_url)
    if is_plain_to_afar(base_url):
        raise typer.BadParameter("would send the key over plain http: use https", param_hint="--base-url")
    found = _interview(answers, file)
    if found.key_to_keep is not None:
        _write(_beside(file), found.key_to_keep + "\n")
        typer.echo(f"Wrote the key to {_beside(file)}.")
    _write(file, sample(found.values))
    typer.echo(f"\nWrote {file}.")
    _tell_of_directories(file)
    option = "" if file == DEFAULT_PATH else f" --config {shlex.quote(str(file))}"
    typer.echo(f"Try it with `tablefeed check{option}`, then start it with `tablefeed run{option}`.")
    if file == DEFAULT_PATH:
        typer.echo("As a service it is started with `systemctl enable --now tablefeed`.")


@dataclass(frozen=True, slots=True)
class Found:
    """What is to be written."""

    values: Mapping[tuple[str, str], object]
    """What the file has to say, by section and key."""
    key_to_keep: str | None
    """A key that was typed in."""


def _interview(answers: Answers, file: Path) -> Found:
    # Nothing is asked while the event loop runs, which would hold Ctrl-C back until the answer.
    key, key_file = _key(answers, file)
    tenant = _got("Tenant id", "--tenant", Identifier, answers.tenant)
    datatable, dataset = _datatable(run_async(_asked(_datasets(key, tenant, answers.base_url))), answers.datatable)
    directory = _directory(answers.directory)
    name = _got("Name of the feed", "--name", FeedName, answers.name, default=_name_of(directory))
    values: dict[tuple[str, str], object] = {
        ("api", "tenant_id"): tenant,
        ("feeds", "name"): name,
        ("feeds", "directory"): str(directory),
        ("feeds", "datatable_id"): datatable,
        ("feeds", "dataset_id"): dataset,
    }
    # A key that the environment gave is not written anywhere.
    values["api", "api_key_file"] = str(key_file or "")
    if answers.base_url != PRODUCTION:
        values["api", "base_url"] = answers.base_url
    typed = answers.key_file is None and key_file is not None
    return Found(values, key if typed else None)


def _absolute(path: Path) -> Path:
    """The path from the root, as it is to stand in the file: without "..", and with the links that were named."""
    there = path.expanduser()
    return there.resolve() if ".." in there.parts else there.absolute()


def _beside(file: Path) -> Path:
    return _absolute(file.with_name("api-key"))


def _key(answers: Answers, file: Path) -> tuple[str, Path | None]:
    """The API key, and the file that holds it, or is to hold it: one that is typed in lies beside the configuration."""
    if answers.key_file is not None:
        source = KeyFile(_absolute(answers.key_file))
        return source.read(), source.path
    if key := os.environ.get(KEY_VARIABLE):
        return KeyVariable(KEY_VARIABLE, key).read(), None
    beside = _beside(file)
    if os.path.lexists(beside):
        raise Fatal(f"{beside} is there already", f"Use it with --api-key-file {beside}, or move it away")
    return _ask("API key (it is not shown)", f"--api-key-file (or ${KEY_VARIABLE})", hidden=True), beside


async def _datasets(key: str, tenant: str, base_url: str) -> list[Dataset]:
    async with ProcessMindClient(key, tenant, base_url=base_url) as client:
        return [await client.get_dataset(it.id) for it in await client.get_datasets()]


def _datatable(datasets: Sequence[Dataset], wanted: str | None) -> tuple[str, str]:
    """(datatable, dataset) by their ids: the one that is wanted, or the one that is chosen from all."""
    tables = [(dataset, table) for dataset in datasets for table in dataset.datatables]
    if wanted is not None:
        found = [(table.id, dataset.id) for dataset, table in tables if table.id == wanted]
        if not found:
            raise Fatal(f"no dataset of the tenant holds the datatable {wanted}", f"It has {_names(datasets)}")
        return found[0]
    if not tables:
        raise Fatal("the tenant has no datatable", "Make one in ProcessMind first")
    typer.echo("")
    for number, (dataset, table) in enumerate(tables, 1):
        typer.echo(f"{number:3}  {shown(dataset.display_name)} / {shown(table.display_name)}  ({shown(table.id)})")
    while True:
        answer = _ask("Number of the datatable", "--datatable")
        if answer.isdecimal() and 1 <= int(answer) <= len(tables):
            dataset, table = tables[int(answer) - 1]
            return table.id, dataset.id
        typer.echo(f"Choose a number from 1 to {len(tables)}.")


def _names(datasets: Sequence[Dataset]) -> str:
    return ", ".join(table.id for dataset in datasets for table in dataset.datatables) or "none"


def _directory(given: Path | None) -> Path:
    path = given or Path(_ask("Directory that the export drops its files in", "--directory"))
    return _absolute(path)


def _name_of(directory: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", directory.name).strip("-._") or "exports"


def _got(question: str, flag: str, kind: Any, given: str | None, *, default: str | None = None) -> str:
    """What a flag gives, or an answer that is right. Raises the usage error that names the flag."""
    if given is not None:
        return parsed(flag, partial(checked, kind), given)
    while True:
        answer = _ask(question, flag, default=default)
        try:
            return checked(kind, answer)
        except ValueError as error:
            typer.echo(f"That does not do: it {error}.")


def _ask(question: str, flag: str, *, default: str | None = None, hidden: bool = False) -> str:
    """An answer from the terminal. Raises the usage error that names the flag where there is none."""
    if not sys.stdin.isatty():
        if default is not None:
            return default
        raise typer.BadParameter(f"{flag} is needed where there is no terminal to ask on")
    try:
        answer: str = typer.prompt(question, default=default, hide_input=hidden)
    except typer.Abort:
        typer.echo("\nNothing was written.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    return answer.strip()


async def _asked(answer: Awaitable[T]) -> T:
    """What the API answers. Raises Fatal with the remedy."""
    try:
        return await answer
    except KeyRefused as error:
        raise Fatal(error.reason, "Check the key, and that it belongs to this tenant. Nothing was written") from None
    except DeliveryError as error:
        code = Exit.UNAVAILABLE if isinstance(error, Transient) else Exit.CONFIG
        raise Fatal(str(error), "Nothing was written", code) from None


def _assert_place(file: Path) -> None:
    """Find out before anything is asked that the file could not be written. Raises Fatal."""
    there = next(place for place in file.absolute().parents if os.path.lexists(place))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "is no directory" if not there.is_dir() else "is not writable for this user"
        raise Fatal(
            f"{file} cannot be written: {there} {what}",
            "Run this as root, or name another place with --config",
            Exit.CANNOT_CREATE,
        )


def _write(file: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = file.with_name(f".{file.name}.draft")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
        draft.rename(file)
    except OSError as error:
        raise Fatal(
            f"{file} cannot be written: {error.strerror}", "Name another place with --config", Exit.CANNOT_CREATE
        ) from None


def _tell_of_directories(file: Path) -> None:
    """What is wrong with the feed's directories, while somebody is there to mend it."""
    for feed in to_feeds(load(file, os.environ), os.environ):
        findings = probe_directories(feed)
        for problem in findings.problems:
            typer.echo(f"But {problem.what}. {problem.remedy}.")
        for note in findings.notes:
            typer.echo(f"Note: {note}.")
