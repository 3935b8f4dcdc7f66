"""`tablefeed config`: a sample, the schema for editors, and what is in force."""

import json
import os
import sys

import typer

from tablefeed.cli.options import Config
from tablefeed.config import load_with_origins
from tablefeed.config.sample import sample
from tablefeed.config.show import in_force, schema

config = typer.Typer(
    help="A sample file, the schema for editors, and what is in force.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@config.command("sample")
def show_sample() -> None:
    """Print a commented sample with every key, its default and its meaning."""
    sys.stdout.write(sample())


@config.command("schema")
def show_schema() -> None:
    """Print the JSON Schema of the file.

    Editors use it to complete and check: save it, and begin the file with `#:schema ./tablefeed.schema.json`.
    """
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")


@config.command("show")
def show(path: Config = None) -> None:
    """Print every setting that is in force and where it comes from. API keys are not shown."""
    loaded = load_with_origins(path, os.environ)
    sys.stdout.write(in_force(loaded.settings, loaded.file, loaded.origins, os.environ))
