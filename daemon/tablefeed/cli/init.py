"""`tablefeed init`: asks for what a configuration needs, tries it, and writes the file."""

import os
import re
import sys
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from tablefeed.archive.directories import probe_directories
from tablefeed.cli.options import Config, quiet_logs, run_async
from tablefeed.client import ProcessMindClient
from tablefeed.config import DEFAULT_PATH, load, to_feeds
from tablefeed.config.environment import CONFIG_VARIABLE, KEY_VARIABLE
from tablefeed.config.sample import sample
from tablefeed.errors import DeliveryError, Exit, Fatal, Transient
from tablefeed.http import is_plain_to_afar
from tablefeed.processmind import Dataset

T = TypeVar("T")

_PRODUCTION = "https://api.processmind.com"


@dataclass(frozen=True, slots=True)
class Answers:
    """What the flags say; None where it is to be asked."""

    tenant: str | None
    datatable: str | None
    directory: Path | None
    name: str | None
    key_file: Path | None
    base_url: str


def init(
    config: Config = None,
    tenant: Annotated[str | None, typer.Option(help="Your tenant's id.", show_default=False)] = None,
    datatable: Annotated[str | None, typer.Option(help="The datatable's id.", show_default=False)] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Where the export drops its files.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the feed.", show_default=False)] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"The file that holds the API key. Without it ${KEY_VARIABLE} is taken, or you are asked."),
    ] = None,
    base_url: Annotated[str, typer.Option(help="Where the API is.")] = _PRODUCTION,
    force: Annotated[bool, typer.Option("--force", help="Write over a configuration that is there.")] = False,
) -> None:
    """Ask for what is needed, try it, and write a commented configuration that only its owner may read.

    With all flags given nothing is asked, so that it works without a terminal too.
    """
    quiet_logs()
    file = config or Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_PATH)
    if file.exists() and not force:
        raise Fatal(f"{file} is there already", "Edit it, name another with --config, or write over it with --force")
    if is_plain_to_afar(base_url):
        raise typer.BadParameter("would send the key over plain http: use https", param_hint="--base-url")
    answers = Answers(tenant, datatable, directory, name, api_key_file, base_url)
    _write(file, sample(run_async(_interview(answers, file))))
    typer.echo(f"\nWrote {file}.")
    _tell_of_directories(file)
    typer.echo(f"Try it with `tablefeed check --config {file}`, then start it with `tablefeed run --config {file}`.")


async def _interview(answers: Answers, file: Path) -> Mapping[tuple[str, str], object]:
    """What the file has to say, by section and key."""
    key, key_file = _key(answers, file)
    tenant = answers.tenant or _ask("Tenant id", "--tenant")
    async with ProcessMindClient(key, tenant, base_url=answers.base_url) as client:
        datatable, dataset = await _asked(_datatable(client, answers.datatable))
    directory = _directory(answers.directory)
    name = answers.name or _ask("Name of the feed", "--name", default=_name_of(directory))
    values: dict[tuple[str, str], object] = {
        ("api", "tenant_id"): tenant,
        ("feeds", "name"): name,
        ("feeds", "directory"): str(directory),
        ("feeds", "datatable_id"): datatable,
        ("feeds", "dataset_id"): dataset,
    }
    # A key that the environment gave is not written anywhere.
    values["api", "api_key_file"] = str(key_file or "")
    if answers.base_url != _PRODUCTION:
        values["api", "base_url"] = answers.base_url
    return values


def _key(answers: Answers, file: Path) -> tuple[str, Path | None]:
    """The API key, and the file that holds it; one that is typed in is written beside the configuration."""
    if answers.key_file is not None:
        try:
            return answers.key_file.read_text().strip(), answers.key_file.resolve()
        except OSError as error:
            raise Fatal(f"{answers.key_file} cannot be read: {error.strerror}", "Name the file of the key") from None
    if key := os.environ.get(KEY_VARIABLE):
        return key, None
    key = _ask("API key (it is not shown)", f"--api-key-file, or set ${KEY_VARIABLE}", hidden=True).strip()
    beside = file.with_name("api-key").absolute()
    if beside.exists():
        raise Fatal(f"{beside} is there already", "Use it with --api-key-file, or move it away")
    _write(beside, key + "\n")
    typer.echo(f"Wrote the key to {beside}.")
    return key, beside


async def _datatable(client: ProcessMindClient, wanted: str | None) -> tuple[str, str]:
    """(datatable, dataset) by their ids: the one that is wanted, or the one that is chosen from all."""
    datasets = [await client.get_dataset(it.id) for it in await client.get_datasets()]
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
        typer.echo(f"{number:3}  {dataset.display_name} / {table.display_name}  ({table.id})")
    while True:
        answer = _ask("Number of the datatable", "--datatable")
        if answer.isdecimal() and 1 <= int(answer) <= len(tables):
            dataset, table = tables[int(answer) - 1]
            return table.id, dataset.id
        typer.echo(f"Choose a number from 1 to {len(tables)}.")


def _names(datasets: list[Dataset]) -> str:
    return ", ".join(table.id for dataset in datasets for table in dataset.datatables) or "none"


def _directory(given: Path | None) -> Path:
    path = given or Path(_ask("Directory that the export drops its files in", "--directory"))
    return path.expanduser().absolute()


def _name_of(directory: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", directory.name).strip("-._") or "exports"


def _ask(question: str, flag: str, *, default: str | None = None, hidden: bool = False) -> str:
    """An answer from the terminal. Raises the usage error that names the flag where there is none."""
    if not sys.stdin.isatty():
        if default is not None:
            return default
        raise typer.BadParameter("is needed where nobody can be asked", param_hint=flag)
    answer: str = typer.prompt(question, default=default, hide_input=hidden)
    return answer.strip()


async def _asked(answer: Awaitable[T]) -> T:
    """What the API answers. Raises Fatal with the remedy."""
    try:
        return await answer
    except DeliveryError as error:
        code = Exit.UNAVAILABLE if isinstance(error, Transient) else Exit.CONFIG
        raise Fatal(str(error), "Nothing was written", code) from None


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
