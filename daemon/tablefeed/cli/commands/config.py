"""`tablefeed config`."""

import typer

from tablefeed.cli.options import Config

config = typer.Typer(
    help="A sample file, the schema for editors, and what is in force.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@config.command("sample", short_help="Print a sample with every key.")
def show_sample() -> None:
    """Print a commented sample with every key, its default and its meaning.

    Examples:

    \b
      tablefeed config sample > /etc/tablefeed/tablefeed.toml
    """
    from tablefeed.cli.config import print_sample

    print_sample()


@config.command("schema", short_help="Print the JSON Schema of the file, for editors.")
def show_schema() -> None:
    """Print the JSON Schema of the file.

    Editors use it to complete and check: save it, and begin the file with `#:schema ./tablefeed.schema.json`.

    Examples:

    \b
      tablefeed config schema > tablefeed.schema.json
    """
    from tablefeed.cli.config import print_schema

    print_schema()


@config.command("show", short_help="Print what is in force, and from where.")
def show(path: Config = None) -> None:
    """Print every setting that is in force and where it comes from.

    That is the file, an environment variable or the default. API keys are not shown, only where they are taken from.

    Examples:

    \b
      tablefeed config show
      TABLEFEED_UPLOAD__CONCURRENCY=4 tablefeed config show

    Exit codes: 0 done, 77 no permission, 78 the configuration has errors, all of which are told.
    """
    from tablefeed.cli.config import print_in_force

    print_in_force(path)
