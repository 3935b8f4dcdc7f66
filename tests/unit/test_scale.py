"""The model of a fleet gives the known answers where there are some, and the page says what the model gives."""

import json
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import pytest

import scale.__main__ as command
from scale.cases import API, CONNECTIONS, QUICK, WAL, borders, cases, demands, heard, keeps_up, run, told, use, world_of
from scale.checks import held_beside
from scale.figures import Figures, read_figures
from scale.measure import Check
from scale.model import Fleet
from scale.postgres import Postgres
from scale.world import Change, Load, Outcome, World

DOCS = Path(__file__).parents[2] / "docs"
KEPT = json.loads((DOCS / "scale.json").read_text())
FREE = World(
    cores=1,
    transaction=0.0,
    row=0.0,
    read=0.0,
    seen=0.0,
    flush=0.0,
    wal_rate=inf,
    wal_of_row=0.0,
    api_rate=inf,
    api=0.0,
    upload=0.0,
    move=0.0,
    node_cpu=0.0,
)
"""A world in which nothing costs anything."""


@pytest.fixture
def figures() -> Figures:
    return read_figures(KEPT["figures"])[0]


def busy(world: World, nodes: int = 4, *, files: int = 2_000, **load: Any) -> Outcome:
    """Nodes that always have a file in flight, or what `load` says."""
    return Fleet(world, replace(Load(backlog=1), **load), nodes).run(warm_files=200, files=files)


def test_one_core_with_arrivals_at_random_makes_them_wait_as_queueing_theory_says() -> None:
    """Poisson arrivals and a constant service: the mean wait of M/D/1 is rho * s / (2 * (1 - rho))."""
    random, postgres, service, rate = Random(7), Postgres(1, 0.0, inf), 0.001, 700.0
    now, waits = 0.0, []
    for _ in range(100_000):
        now += random.expovariate(rate)
        waits.append(postgres.work(now, service) - service - now)
    rho = rate * service
    assert postgres.busy(now) / now == pytest.approx(rho, rel=0.01)
    assert sum(waits) / len(waits) == pytest.approx(rho * service / (2 * (1 - rho)), rel=0.05)


def test_utilisation_is_throughput_times_service() -> None:
    """The utilisation law, with a load that is far from full."""
    seen = Fleet(replace(FREE, transaction=0.002, row=0.001), Load(arrivals=5.0), 4).run(warm_files=100, files=2_000)
    assert seen.files == pytest.approx(20, rel=0.06)
    assert seen.cpu == pytest.approx(seen.files * len(Change) * 0.003, rel=0.01)
    assert seen.transactions == pytest.approx(seen.files * len(Change), rel=0.01)


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_what_asks_for_all_gets_what_the_cores_give(cores: int) -> None:
    """At saturation files a second are cores over the CPU of a file, and the cores are busy all the time."""
    seen = busy(replace(FREE, cores=cores, transaction=0.002), nodes=8)
    assert seen.files == pytest.approx(cores / (len(Change) * 0.002), rel=0.01)
    assert seen.cpu == pytest.approx(1.0, abs=0.01)


def test_files_in_flight_are_throughput_times_time() -> None:
    """Little's law, where one node's files wait for the ledger and for nothing else."""
    seen = busy(replace(FREE, transaction=0.001), nodes=20)
    assert seen.files * seen.delay == pytest.approx(20, rel=0.02)


@pytest.mark.parametrize("nodes", [1, 30, 1_000])
def test_idle_nodes_make_their_heartbeats_and_their_questions(nodes: int) -> None:
    """N nodes make N times what one makes, and nothing else."""
    seen = Fleet(FREE, Load(beat_every=20.0, read_every=5.0), nodes).run(seconds=40.0)
    assert seen.transactions * seen.seconds == pytest.approx(nodes * (2 + 8))
    assert seen.files == 0


def test_the_same_seed_gives_the_same_and_another_one_not() -> None:
    """A run can be repeated exactly, on any machine."""
    load, world = Load(arrivals=3.0, beat_every=2.0), replace(FREE, transaction=0.001, flush=0.001, upload=0.1)
    one, same, other = (Fleet(world, load, 5, seed=seed).run(warm_files=10, files=300) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_commits_that_are_ready_during_a_flush_share_the_next_one() -> None:
    """The first has a flush of its own, the others that are ready before it ends have one together."""
    postgres = Postgres(8, 0.010, inf)
    ends = [postgres.commit(now, 0.001, 100) for now in (0.0, 0.002, 0.004, 0.030)]
    assert ends == pytest.approx([0.011, 0.021, 0.021, 0.041])


def test_the_log_takes_no_more_than_its_rate() -> None:
    """With full commits, bytes a second are what the disk gives."""
    seen = busy(replace(FREE, cores=64, transaction=1e-6, wal_rate=1e6, wal_of_row=1_000.0), nodes=50, files=10_000)
    assert seen.wal == pytest.approx(1e6, rel=0.02)
    assert seen.files == pytest.approx(1e6 / 1_000 / len(Change), rel=0.02)


def test_a_node_commits_together_what_came_during_its_last_commit() -> None:
    """With one file in flight each change is a commit; with many there are far fewer, and more files."""
    world = replace(FREE, flush=0.005, upload=0.02)
    alone, many = busy(world, nodes=1, files=500), busy(world, nodes=1, files=2_000, backlog=64)
    assert alone.transactions / alone.files == pytest.approx(len(Change), rel=0.02)
    assert many.transactions / many.files < 1
    assert many.files > 10 * alone.files


def test_nodes_that_send_one_feed_take_turns_at_its_row() -> None:
    """The row is held until the commit is durable: no flush is shared, whatever the number of nodes."""
    world = replace(FREE, cores=64, flush=0.010)
    shared = busy(world, nodes=50, files=500, feed_row=frozenset({Change.UPLOADED}))
    apart = busy(world, nodes=50, files=500)
    assert shared.files <= 1 / 0.010 * 1.01
    assert shared.feed_row == pytest.approx(1.0, abs=0.02)
    assert apart.files > 5 * shared.files
    rarely = busy(replace(world, feed_row_share=0.0), nodes=50, files=500, feed_row=frozenset({Change.UPLOADED}))
    assert rarely.files == pytest.approx(apart.files, rel=0.2)


def test_the_api_lets_in_as_many_calls_as_it_says() -> None:
    """All nodes together get its rate, and no more."""
    seen = busy(replace(FREE, api_rate=100.0, api=0.01), nodes=50, files=1_000)
    assert seen.files == pytest.approx(100, rel=0.02)
    assert seen.api == pytest.approx(100, rel=0.02)


def test_a_node_sends_no_more_than_its_cpu_gives() -> None:
    """One core of a node, and twice as much with two nodes."""
    one, two = (busy(replace(FREE, node_cpu=0.01), nodes=n, files=1_000, backlog=20) for n in (1, 2))
    assert one.files == pytest.approx(100, rel=0.02)
    assert two.files == pytest.approx(200, rel=0.02)
    assert two.node_cpu == pytest.approx(1.0, abs=0.02)


def test_a_heartbeat_waits_for_its_nodes_commit_and_goes_with_the_next() -> None:
    """One change connection a node: a beat makes no commit of its own while there is work, and is late with it."""
    world, load = replace(FREE, flush=0.5), Load(backlog=8, beat_every=1.0)
    seen = Fleet(world, load, 1).run(warm_files=20, files=100)
    assert 0.5 < seen.slowest_beat <= 1.0
    assert seen.transactions == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("nodes", [100, 200])
def test_heartbeats_that_look_at_all_nodes_cost_by_the_square(nodes: int) -> None:
    """N nodes look at N rows each, every 20 s."""
    seen = Fleet(replace(FREE, seen=1e-5), Load(beat_every=20.0), nodes).run(seconds=200.0)
    assert seen.cpu == pytest.approx(nodes * nodes / 20 * 1e-5, rel=0.02)


def test_what_plants_ask_for_is_what_the_model_sees(figures: Figures) -> None:
    """The sums that the plan is made of agree with the simulation wherever nothing is full."""
    result = run(cases(figures)["night"], 100)
    seen, asked = use(figures, result), demands(figures, 100)
    came = result.outcome.files / (100 * figures.night_files / figures.night_hours / 3600)
    for name in seen:
        assert seen[name] == pytest.approx(asked[name] * (1 if name == CONNECTIONS else came), rel=0.05), name


def test_the_border_of_a_limit_is_the_last_number_of_nodes_that_it_lets_in(figures: Figures) -> None:
    """One node more asks for more than there is, also where it grows by the square."""
    found = borders(figures)
    assert found[CONNECTIONS] == int(figures.postgres_connections / figures.connections_per_node)
    for name, nodes in found.items():
        assert demands(figures, nodes)[name] <= 1 < demands(figures, nodes + 1)[name], name


def test_nights_that_ask_for_too_much_are_told_from_others(figures: Figures) -> None:
    """Where the first of the limits is full that a night may not go beyond; full commits count for the CPU."""
    most = borders(
        replace(figures, cpu_us_per_transaction=0, cpu_us_per_read=0, cpu_us_per_node_seen=0, cpu_us_per_row=0)
    )
    last = min(most[API], most[WAL])
    free = replace(figures, postgres_cores=10_000)
    assert keeps_up(free, last - 1)
    assert not keeps_up(free, last + 1)
    assert not keeps_up(replace(figures, postgres_cores=1), last)


def test_the_page_and_its_picture_are_what_the_file_gives() -> None:
    """Text and figures cannot disagree: all of it is made of `docs/scale.json`."""
    texts = command.made(KEPT)
    assert set(texts) == {"scale.json", "scale.md", "scale.svg"}
    for name, text in texts.items():
        assert (DOCS / name).read_text() == text, f"docs/{name}: run `make scale`"


def test_the_outcomes_in_the_file_are_those_of_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes a figure and not the page is told; the sizes that are quick to run stand for all."""
    monkeypatch.setattr(command, "SIZES", QUICK)
    new = command.renew(KEPT)
    assert new["outcomes"] == [each for each in KEPT["outcomes"] if each["nodes"] in QUICK]
    assert new["model_of_checks"] == KEPT["model_of_checks"]
    assert told(heard(new["outcomes"])) == new["outcomes"]


def test_the_model_is_near_a_real_postgresql(figures: Figures) -> None:
    """Where the same was measured, the middle of all checks is within a half more and a third less."""
    parts = sorted(held_beside(figures, Check(**each)).model / each["files"] for each in KEPT["checks"])
    assert 2 / 3 < parts[len(parts) // 2] < 3 / 2


def test_other_values_are_tried_without_a_change_of_any_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--set` prints a page that says so; without it the same command writes the three files anew."""
    monkeypatch.setattr(command, "SIZES", (1, 10))
    (tmp_path / "scale.json").write_text(json.dumps(KEPT | {"checks": []}))
    assert command.main(["--out", str(tmp_path), "--set", "postgres_cores=32", "--set", "flush_ms=5"]) == 0
    out = capsys.readouterr().out
    assert "A PostgreSQL of 32 cores" in out
    assert "takes 5 ms" in out
    assert "given on the command line" in out
    assert [path.name for path in tmp_path.iterdir()] == ["scale.json"]
    assert command.main(["--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scale.json", "scale.md", "scale.svg"]
    assert json.loads((tmp_path / "scale.json").read_text())["figures"] == KEPT["figures"]


def test_a_figure_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line as in the file, with an exit code that is not 0."""
    assert command.main(["--out", str(DOCS), "--set", "postgres_core=32"]) == 1
    assert "no such figure: postgres_core; there are" in capsys.readouterr().err
    assert command.main(["--out", str(tmp_path)]) == 1
    assert "scale.json cannot be used: " in capsys.readouterr().err


def test_measuring_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without PostgreSQL's programs nothing is run and nothing changes."""
    monkeypatch.setattr(command, "binaries", lambda: None)
    assert command.main(["--measure"]) == 1
    assert "apt-get install postgresql" in capsys.readouterr().err


def test_figures_that_say_not_where_they_come_from_are_refused() -> None:
    """What is missing, unknown or wrong is named."""
    good = KEPT["figures"]
    without = {name: each for name, each in good.items() if name != "flush_ms"}
    for told_figures, said in (
        (without, "missing: flush_ms"),
        (good | {"fush_ms": good["flush_ms"]}, "no such figure: fush_ms"),
        (good | {"flush_ms": good["flush_ms"] | {"source": ""}}, "flush_ms: .*where the value comes from"),
        (good | {"flush_ms": good["flush_ms"] | {"value": -1}}, "flush_ms: value must be"),
        (good | {"flush_ms": {"value": 1}}, "flush_ms: a figure has"),
    ):
        with pytest.raises(ValueError, match=said):
            read_figures(told_figures)


def test_measured_values_take_the_place_of_assumed_ones(figures: Figures) -> None:
    """Only those that were measured, with their source and marked so."""
    new = command.with_measured(
        KEPT, {"figures": {"flush_ms": {"value": 3, "source": "here"}}, "updates": [], "checks": []}
    )
    assert new["figures"]["flush_ms"] == KEPT["figures"]["flush_ms"] | {"value": 3, "measured": True, "source": "here"}
    assert world_of(read_figures(new["figures"])[0]) == replace(world_of(figures), flush=0.003)
