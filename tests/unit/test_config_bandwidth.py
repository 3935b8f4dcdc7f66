"""The key `bandwidth`: a rate, or a timetable, from the file and from the environment."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.config import KEY, Site
from tablefeed.config import load_with_origins
from tablefeed.config.bandwidth import BANDWIDTH, _bandwidth
from tablefeed.config.show import in_force, schema
from tablefeed.throttle import Schedule, Timetable

OFFICE = [["08:00", "5MiB/s"], ["19:00", ""]]
RATES = st.none() | st.integers(2**10, 2**60)
TIMETABLES = st.dictionaries(st.integers(0, 1439), RATES, min_size=1).map(
    lambda it: Timetable(tuple(sorted(it.items())))
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize(
    ("written", "held"),
    [
        ("", None),
        ("20MiB/s", 20 * 2**20),
        (OFFICE, Timetable(((480, 5 * 2**20), (1140, None)))),
        ([["23:59", "1KiB/s"]], Timetable(((1439, 1024),))),
    ],
)
def test_both_forms_are_read_from_the_file_and_the_environment(site: Site, written: Any, held: Schedule) -> None:
    """The environment has them as they are: a plain text, or a list in JSON."""
    assert site.load(upload={"bandwidth": written}).upload.bandwidth == held
    text = written if isinstance(written, str) else f" {json.dumps(written)}"
    assert site.load({"TABLEFEED_UPLOAD__BANDWIDTH": text}).upload.bandwidth == held


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (20, "must be a rate in quotes, as in"),
        (True, "must be a rate in quotes, as in"),
        ({"08:00": "5MiB/s"}, "or a timetable, as in"),
        ("20MiB", 'is not a rate; write it like "20MiB/s"'),
        ("0MiB/s", 'is too slow; the slowest is "1KiB/s"'),
        ([], "is an empty timetable"),
        (["08:00", "5MiB/s"], "has an entry 1 that is no pair of texts"),
        ([["08:00"]], "has an entry 1 that is no pair of texts"),
        ([["08:00", "5MiB/s", ""]], "has an entry 1 that is no pair of texts"),
        ([["08:00", 5]], "has an entry 1 that is no pair of texts"),
        ([[8, "5MiB/s"]], "has an entry 1 that is no pair of texts"),
        ([["08:00", ""], ["24:00", ""]], "has no time of day in entry 2"),
        ([["8:00", ""]], "has no time of day in entry 1"),
        ([["08:60", ""]], "has no time of day in entry 1"),
        ([["08:00\n", ""]], "has no time of day in entry 1"),
        ([["0٨:00", ""]], "has no time of day in entry 1"),
        ([["08:00", "fast"]], 'has an entry 1 whose second part is not a rate; write it like "20MiB/s"'),
        ([["08:00", "1B/s"]], "has an entry 1 whose second part is too slow"),
        ([["08:00", ""], ["08:00", "1MiB/s"]], "has an entry 2 that begins at the same time as entry 1"),
        ([["08:00", ""], ["19:00", "1MiB/s"], ["18:00", ""]], "has an entry 3 that begins before entry 2"),
    ],
)
def test_what_is_no_bandwidth_is_refused_with_what_would_be_right(site: Site, written: Any, message: str) -> None:
    """The entry is told by its number, and the variable by its name."""
    found = site.problems(upload={"bandwidth": written}) if not isinstance(written, dict) else refused(written)
    assert list(found) == ["upload.bandwidth"]
    assert message in found["upload.bandwidth"]
    if isinstance(written, list):
        found = site.problems({"TABLEFEED_UPLOAD__BANDWIDTH": json.dumps(written)})
        assert list(found) == ["TABLEFEED_UPLOAD__BANDWIDTH"]
        assert message in found["TABLEFEED_UPLOAD__BANDWIDTH"]


def refused(written: object) -> dict[str, str]:
    """Why a value is refused that the tests' TOML cannot hold."""
    with pytest.raises(ValueError, match=" ") as error:
        _bandwidth(written)
    return {"upload.bandwidth": str(error.value)}


@pytest.mark.parametrize("text", [f'["{KEY}', f'[["08:00", "{KEY}"]]', f'[["{KEY}", ""]]', KEY, "[" * 100_000])
def test_a_wrong_variable_is_told_once_and_not_repeated(site: Site, text: str) -> None:
    """It may hold a secret that was set under a wrong name."""
    found = site.problems({"TABLEFEED_UPLOAD__BANDWIDTH": text})
    assert list(found) == ["TABLEFEED_UPLOAD__BANDWIDTH"]
    assert KEY not in str(found)
    assert "MiB/s" in found["TABLEFEED_UPLOAD__BANDWIDTH"] or 'like "08:00"' in found["TABLEFEED_UPLOAD__BANDWIDTH"]


@given(RATES | TIMETABLES)
def test_what_is_shown_means_the_same_and_fits_the_schema(value: Schedule) -> None:
    """Whatever is in force is written so that it is read as exactly that."""
    written = BANDWIDTH.write(value)
    assert _bandwidth(written) == value
    assert fits(written)


@pytest.mark.parametrize("written", ["20MiB", "fast", [], [["8:00", ""]], [["24:00", ""]], [["08:00"]], ["08:00"], 5])
def test_the_schema_refuses_what_cannot_be_read(written: object) -> None:
    """An editor marks it before the daemon does."""
    assert not fits(written)


def fits(value: object) -> bool:
    """Whether the schema for editors allows it, by what it uses of JSON Schema."""
    described = schema()["$defs"]["UploadSettings"]["properties"]["bandwidth"]
    rate, table = described["anyOf"]
    if isinstance(value, str):
        return re.search(rate["pattern"], value) is not None
    entry = table["items"]
    return (
        isinstance(value, list)
        and len(value) >= table["minItems"]
        and all(
            isinstance(it, list)
            and len(it) == entry["minItems"] == entry["maxItems"]
            and all(re.search(part["pattern"], text) for part, text in zip(entry["prefixItems"], it, strict=True))
            for it in value
        )
    )


def test_it_is_shown_in_its_form_with_its_origin(site: Site) -> None:
    """As a file that could be used."""
    environ = {"TABLEFEED_UPLOAD__BANDWIDTH": json.dumps(OFFICE)}
    loaded = load_with_origins(site.write(), environ, default=site.default)
    text = in_force(loaded.settings, loaded.file, loaded.origins, environ)
    [line] = [line for line in text.splitlines() if line.startswith("bandwidth = ")]
    assert re.fullmatch(r'bandwidth = \[\["08:00", "5MiB/s"\], \["19:00", ""\]\] +# TABLEFEED_UPLOAD__BANDWIDTH', line)
    assert site.load_as_is(site.root_file("again.toml", text)).upload.bandwidth == loaded.settings.upload.bandwidth
