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


def publish(kept: dict[str, Any], out: Path) -> None:
    """Write the file, and what is made of it alone."""
    figures, known = read_figures(kept["figures"])
    results = heard(kept["outcomes"])
    pairs = zip(kept["checks"], kept["model_of_checks"], strict=True)
    checks = [Held(Check(**check), model) for check, model in pairs]
    (out / "scale.json").write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    (out / "scale.svg").write_text(drawing(figures, results))
    (out / "scale.md").write_text(page(figures, known, results, checks))


def with_measured(kept: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The same with these values and their sources, marked as measured."""
    figures = {name: {**each} for name, each in kept["figures"].items()}
    for name, found in new["figures"].items():
        figures[name] |= {**found, "measured": True}
    return kept | {"figures": figures, "checks": new["checks"]}


def main(given: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("scale", description="How many nodes one PostgreSQL carries, by a model")
    parser.add_argument("--measure", action="store_true", help="measure a PostgreSQL on this machine first")
    parser.add_argument("--seconds", type=int, default=5, help="how long each of some twenty measurements takes (5)")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"), help="a directory on a real disk")  # noqa: S108
    parser.add_argument("--out", type=Path, default=DOCS, help="where scale.json is read and all is written (docs)")
    wanted = parser.parse_args(given)
    try:
        kept = json.loads((wanted.out / "scale.json").read_text())
        read_figures(kept["figures"])
    except (OSError, ValueError, KeyError) as error:
        _tell(f"{os.path.relpath(wanted.out)}/scale.json cannot be used: {error}")
        return 1
    if wanted.measure:
        programs = binaries()
        if programs is None:
            _tell(f"Nothing is measured. {REMEDY}")
            return 1
        kept = with_measured(kept, measured(programs, wanted.scratch, wanted.seconds, _tell))
    publish(renew(kept), wanted.out)
    _tell(f"Written: scale.json, scale.md and scale.svg, in {os.path.relpath(wanted.out)}")
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
