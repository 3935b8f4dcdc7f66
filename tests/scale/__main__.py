"""`make scale`: run the model with the figures in `docs/scale.json`, and renew `docs/scale.md` and its picture."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scale.cases import SIZES, heard, run_all, told
from scale.checks import Held, held_beside
from scale.cluster import REMEDY, binaries
from scale.figures import read_figures
from scale.measure import Check, measured
from scale.page import drawing, page

DOCS = Path(__file__).parents[2] / "docs"


def renew(kept: dict[str, Any]) -> dict[str, Any]:
    """Run every case with the figures in there; returns the same with the new outcomes."""
    figures, _ = read_figures(kept["figures"])
    outcomes = []
    for result in run_all(figures, SIZES):
        _tell(f"{result.case}, {result.nodes:,} nodes: {result.outcome.files:,.0f} files/s")
        outcomes.append(result)
    checks = [held_beside(figures, Check(**each)) for each in kept["checks"]]
    return kept | {"outcomes": told(outcomes), "model_of_checks": [each.model for each in checks]}


def made(kept: dict[str, Any]) -> dict[str, str]:
    """File names and texts: the file itself, and what is made of it alone."""
    figures, known = read_figures(kept["figures"])
    results = heard(kept["outcomes"])
    pairs = zip(kept["checks"], kept["model_of_checks"], strict=True)
    checks = [Held(Check(**check), model) for check, model in pairs]
    return {
        "scale.json": json.dumps(kept, indent=2, ensure_ascii=False) + "\n",
        "scale.svg": drawing(figures, results),
        "scale.md": page(figures, known, results, kept["updates"], checks, kept["note_on_checks"]),
    }


def with_values(kept: dict[str, Any], values: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """The same with other values of some figures. Raises ValueError where one is not known."""
    figures = {**kept["figures"]}
    for name, value in values:
        if name not in figures:
            raise ValueError(f"no such figure: {name}; there are {', '.join(figures)}")
        figures[name] = figures[name] | {"value": value, "measured": False, "source": "given on the command line"}
    return kept | {"figures": figures}


def with_measured(kept: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The same with these values and their sources, marked as measured."""
    figures = {name: {**each} for name, each in kept["figures"].items()}
    for name, found in new["figures"].items():
        figures[name] |= {**found, "measured": True}
    return kept | {"figures": figures, "updates": new["updates"], "checks": new["checks"], "note_on_checks": ""}


def main(given: Sequence[str]) -> int:
    """Returns the exit code."""
    wanted = _arguments(given)
    try:
        kept = with_values(json.loads((wanted.out / "scale.json").read_text()), wanted.set)
        read_figures(kept["figures"])
    except (OSError, ValueError, KeyError) as error:
        _tell(f"The figures in {os.path.relpath(wanted.out)}/scale.json cannot be used: {error}")
        return 1
    if wanted.measure:
        programs = binaries()
        if programs is None:
            _tell(f"Nothing is measured. {REMEDY}")
            return 1
        kept = with_measured(kept, measured(programs, wanted.scratch, wanted.seconds, _tell))
    texts = made(renew(kept))
    if wanted.set:
        print(texts["scale.md"])
        return 0
    for name, text in texts.items():
        (wanted.out / name).write_text(text)
    _tell(f"Written: {', '.join(texts)}, in {os.path.relpath(wanted.out)}")
    return 0


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("scale", description="How many nodes one PostgreSQL carries, by a model")
    parser.add_argument("--measure", action="store_true", help="measure a PostgreSQL on this machine first")
    parser.add_argument("--seconds", type=int, default=3, help="how long each of some forty measurements takes (3)")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"), help="a directory on a real disk")  # noqa: S108
    parser.add_argument("--out", type=Path, default=DOCS, help="where scale.json is read and all is written (docs)")
    what_if = "another value of a figure: the page is only printed"
    parser.add_argument("--set", type=_value, action="append", default=[], metavar="NAME=VALUE", help=what_if)
    return parser.parse_args(given)


def _value(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
