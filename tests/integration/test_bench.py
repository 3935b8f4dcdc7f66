"""The benchmark: its short form runs through, what is missing is said, and its words and pictures are right."""

import asyncio
import json
import platform
import signal
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.__main__ import modules
from bench.model import Bound, Claim, Part, Plan, Profile, Row, Scale, Series, ratios
from bench.pictures import pictures
from bench.profile import kind, parsed, whose
from bench.report import markdown, plain, sides, verdict
from bench.results import Result, Setting, merged, read, write
from bench.rows import fleet, rates, s3, streams
from bench.rows import plain as plain_row
from bench.servers import NGINX_REMEDY, nginx_binary
from support.daemon import clean_environ

TESTS = Path(__file__).parents[1]
nginx_needed = pytest.mark.skipif(nginx_binary() is None, reason=NGINX_REMEDY)

FAST, SLOW = Series("tablefeed", "files/s", (600.0, 900.0, 660.0)), Series("script", "files/s", (300.0, 300.0, 300.0))
FASTER = Claim("tablefeed / script", "", ratios(FAST, SLOW), Bound.AT_LEAST, 2.5)
ROW = Row(1, "Files per second", (FAST, SLOW), (FASTER,), ("They do less.",))
SETTING = Setting("2026-11-25", "full", 3, 0.1, {"cores": "2"}, {"tablefeed": "0.1.0"})


async def bench(tmp_path: Path, *more: str) -> Process:
    """The benchmark in its short form, whose results and scratch are below `tmp_path`."""
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench", "--short", "--out", str(tmp_path / "out")),
        *("--scratch", str(tmp_path / "scratch"), *more),
        cwd=TESTS,
        env=clean_environ(),
        stdout=PIPE,
        stderr=PIPE,
    )


def still_running(tmp_path: Path) -> list[str]:
    """Command lines of processes that work there."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(tmp_path / "scratch") in command:
            found.append(command)
    return found


async def test_the_short_form_gives_figures_for_every_row(tmp_path: Path) -> None:
    """Each row has figures or says what is missing; nothing stays behind, and the machine keeps its name and paths."""
    process = await bench(tmp_path)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    rows = json.loads((tmp_path / "out/benchmark.json").read_text())["rows"]
    assert {row["number"] for row in rows} == {number for numbers, _ in modules() for number in numbers}
    for row in rows:
        assert row["series"] or "missing" in " ".join(row["notes"]), row
        assert all(value >= 0 for series in row["series"] for value in series["values"]), row
        assert f"{row['number']}. {row['title']}".lower() in out.decode().lower()
    if nginx_binary() is not None:
        assert {row["number"] for row in rows if row["claims"]} >= {1, 3, 4}
        [profile] = [row["profile"] for row in rows if row["number"] == 1]
        assert profile["threads"]
        assert profile["parts"] or profile["missing"]
    written = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert str(tmp_path) not in written
    assert platform.node() not in written
    assert "127.0.0.1" not in written
    assert still_running(tmp_path) == []
    assert list((tmp_path / "scratch").iterdir()) == []


@nginx_needed
async def test_a_benchmark_that_is_ended_ends_its_servers(tmp_path: Path) -> None:
    """A signal in the middle of a run leaves neither nginx nor a daemon behind, nor files."""
    process = await bench(tmp_path, "--rows", "3", "--runs", "1000")
    assert process.stderr is not None
    async for line in process.stderr:
        if b"run 2 of" in line:
            break
    assert still_running(tmp_path) != []
    process.send_signal(signal.SIGTERM)
    _, err = await process.communicate()
    assert process.returncode == 130, err.decode()
    assert still_running(tmp_path) == []
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_what_is_missing_is_said_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nginx, rows that need it are left out, and say how to get it."""
    for module in (rates, s3, streams):
        monkeypatch.setattr(module, "nginx_binary", lambda: None)
    plan = Plan(Scale.SHORT, 1, tmp_path)
    rows = [row for measure in (rates.measure, s3.measure, plain_row.measure) for row in await measure(plan)]
    assert [row.number for row in rows] == [1, 2, 3]
    assert all("apt-get install nginx-light" in row.notes[0] and row.series == () for row in rows)
    told = plain([Result(row, SETTING) for row in rows])
    assert told.count("apt-get install nginx-light") == 3


async def test_a_missing_postgresql_is_said_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a fleet are left out, and say how to get what they need."""
    monkeypatch.setattr(fleet, "programs", lambda: None)
    rows = await fleet.measure(Plan(Scale.SHORT, 1, tmp_path))
    assert [row.number for row in rows] == [*fleet.NUMBERS]
    assert all("apt-get install postgresql" in row.notes[0] and row.series == () for row in rows)


async def test_a_row_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """A typing error measures nothing."""
    process = await bench(tmp_path, "--rows", "1,99")
    _, err = await process.communicate()
    assert process.returncode == 2
    assert "there is no row 99" in err.decode()


def test_a_ratio_is_taken_within_each_run_and_its_median_decides() -> None:
    """A run that was disturbed moves neither the median nor the verdict."""
    assert FASTER.values == (2.0, 3.0, 2.2)
    assert verdict(FASTER) == "missed: 12% short"
    assert verdict(replace(FASTER, limit=2.2)) == "reached"
    assert verdict(replace(FASTER, bound=Bound.AT_MOST, limit=2.0)) == "missed: 10% over"
    assert sides(ROW, FASTER) == (FAST, SLOW)


def test_a_part_of_the_rows_is_renewed_alone(tmp_path: Path) -> None:
    """Rows that were not measured keep their figures and their date; one that was is replaced."""
    path = tmp_path / "benchmark.json"
    other = Result(replace(ROW, number=2), SETTING)
    write(path, merged(read(path), [Result(ROW, SETTING), other]))
    newer = Result(ROW, replace(SETTING, date="2026-12-01"))
    kept = merged(read(path), [newer])
    assert kept == [newer, other]
    write(path, kept)
    assert read(path) == kept


def test_a_profile_tells_threads_modules_and_libraries(tmp_path: Path) -> None:
    """Threads of a pool are told together, and a stack belongs to the innermost of our modules and who it called."""
    ours = "Runner.run (asyncio/runners.py:1);put (tablefeed/upload/put.py:9);get (aiohttp/client.py:3)"
    stack = f"thread (7): MainThread;{ours} 6"
    other = "thread (8): read_11;Thread.run (threading.py:2);read (tablefeed/upload/source.py:4) 2"
    torn = "thread (8): read_11;get (<frozen importlib._bootstrap_external>:1026);\n\x01 3"
    [first, second] = parsed(f"{stack}\n{torn}\n{other}\n")
    assert (first[0], kind(first[1][0]), whose(first[1]), first[2]) == (7, "event loop", ("upload/put", "aiohttp"), 6)
    assert (second[0], kind(second[1][0]), whose(second[1]), second[2]) == (8, "read", ("upload/source", ""), 2)
    path = tmp_path / "benchmark.json"
    profile = Profile(700.0, 0.5, 30.0, (("event loop", 600.0),), (Part("event loop", "upload/put", "aiohttp", 0.75),))
    result = Result(replace(ROW, profile=profile), SETTING)
    write(path, [result])
    assert read(path) == [result]
    assert "| event loop | upload/put | aiohttp | 75.0% |" in markdown([result], {})


def test_the_page_shows_both_sides_and_the_pictures_are_valid() -> None:
    """Ours stands beside the peer's, and every bar, whisker and mark is inside of the picture."""
    tiny = replace(FASTER, values=(0.02, 0.5, 40.0))
    results = [Result(replace(ROW, claims=(FASTER, tiny)), SETTING), Result(replace(ROW, number=11), SETTING)]
    page = markdown(results, {"benchmark-rates.svg": "ratios"})
    assert "| 660 files/s | 300 files/s | 2 / 2.2 / 3 × | ≥ 2.5 × | missed: 12% short |" in page
    assert "![ratios](benchmark-rates.svg)" in page
    drawn = pictures(results)
    assert set(drawn) == {"benchmark-rates.svg", "benchmark-growth.svg"}
    for svg in drawn.values():
        root = ET.fromstring(svg)  # noqa: S314  # our own
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for box in root.iter("{http://www.w3.org/2000/svg}rect"):
            assert 0 <= float(box.get("x", 0)) <= float(box.get("x", 0)) + float(box.attrib["width"]) <= width
            assert float(box.get("y", 0)) + float(box.attrib["height"]) <= height
