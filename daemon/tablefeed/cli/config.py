"""`tablefeed config`: a sample, the schema for editors, and what is in force."""

import json
import os
import sys
from pathlib import Path

from tablefeed.config import load_with_origins
from tablefeed.config.sample import sample
from tablefeed.config.show import in_force, schema


def print_sample() -> None:
    """Print a commented sample with every key, its default and its meaning."""
    sys.stdout.write(sample())


def print_schema() -> None:
    """Print the JSON Schema of the file."""
    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")


def print_in_force(path: Path | None) -> None:
    """Print every setting that is in force and where it comes from."""
    loaded = load_with_origins(path, os.environ)
    sys.stdout.write(in_force(loaded.settings, loaded.file, loaded.origins, os.environ))
