"""The alerts, the dashboard and the scrape configuration: what they ask for exists, and they say what to do."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tablefeed.metrics.catalog import CATALOG, Kind

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "config/prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
SCENARIOS = Path(__file__).with_name("alerts.yml")
DASHBOARD: dict[str, Any] = json.loads((ROOT / "config/grafana/tablefeed.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

LABELS = {name: declared.labels for declared in CATALOG for name in [declared.name]}
for declared in CATALOG:
    if declared.kind is Kind.HISTOGRAM:
        LABELS |= {f"{declared.name}_{part}": declared.labels for part in ("sum", "count")}
        LABELS[f"{declared.name}_bucket"] = {**declared.labels, "le": ()}
        del LABELS[declared.name]
LABELS |= {"up": {}, "process_start_time_seconds": {}, "process_cpu_seconds_total": {}}
LABELS |= {"process_resident_memory_bytes": {}, "ALERTS": {"alertname": (), "alertstate": ()}}
OF_PROMETHEUS = {"job", "instance"}

_SELECTOR = re.compile(r"\b((?:tablefeed|process|python)_\w+|up|ALERTS)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_VARIABLE = re.compile(r"\$(?:__)?\w+")


def queries() -> Iterator[tuple[str, str]]:
    """All that Prometheus is asked, with where."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def wrong(query: str) -> list[str]:
    """What a query asks for that does not exist."""
    found = []
    known = set(OF_PROMETHEUS)
    for name, matchers in _SELECTOR.findall(query):
        if name not in LABELS:
            found.append(f"no metric {name}")
            continue
        known |= LABELS[name].keys()
        for label, operator, value in _MATCHER.findall(matchers):
            allowed = LABELS[name].get(label)
            if allowed is None and label not in OF_PROMETHEUS:
                found.append(f"{name} has no label {label}")
            elif allowed and "$" not in value:
                values = value.split("|") if "~" in operator else [value]
                found += [f"{name}: {label} is never {one}" for one in values if one not in allowed]
    for group in _GROUPING.findall(query):
        found += [f"nothing has the label {label}" for label in re.findall(r"\w+", group) if label not in known]
    return found


def test_what_is_asked_for_exists() -> None:
    """Every metric, label and value in alerts and dashboard is one that the daemon tells."""
    asked = [*queries()]
    assert len(asked) > 40
    assert {where: problems for where, query in asked if (problems := wrong(query))} == {}


@pytest.mark.parametrize(
    "query",
    [
        "tablefeed_feed_stael == 1",
        "sum by (fede) (tablefeed_feed_stale)",
        'tablefeed_feed_stale{fede="a"}',
        'tablefeed_feed_paused{reason=~"operator|lunch"}',
        'tablefeed_files_total{outcome="lost"}',
        "rate(tablefeed_delivery_seconds[5m])",
    ],
)
def test_what_does_not_exist_is_found(query: str) -> None:
    """The check above sees a wrong name, label and value."""
    assert wrong(query)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    """In words, with labels that its series have; and a scenario makes it fire."""
    assert re.fullmatch(r"Tablefeed[A-Z]\w+", rule["alert"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description"}
    assert len(rule["annotations"]["description"]) > 60
    series = {name for name, _ in _SELECTOR.findall(rule["expr"])}
    known = OF_PROMETHEUS.union(*(LABELS[name] for name in series))
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= known
    assert re.search(rf'"{rule["alert"]}", alertstate="firing", sev|alertname: {rule["alert"]}', SCENARIOS.read_text())


def test_what_nobody_wants_to_miss_has_an_alert() -> None:
    """One each."""
    names = [rule["alert"].removeprefix("Tablefeed") for rule in RULES]
    assert len(names) == len(set(names))
    assert {
        *("Down", "Absent", "NoFileArrived", "NoDelivery", "QueueAges", "FeedBlocked", "FeedPaused"),
        *("KeyRefused", "FilesRefused", "RetriesGoOn", "DiskLow", "DiskFull", "LedgerFails", "NodeMissed", "LoopLags"),
    } <= set(names)


def test_the_dashboard_has_a_sound_form() -> None:
    """Each panel asks the chosen source something, in a unit, and none lies over another."""
    assert DASHBOARD["schemaVersion"] >= 36
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "instance", "feed"}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    for panel in PANELS:
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for asking in (panel, *panel["targets"]):
            assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            used = {name.strip("$") for name in _VARIABLE.findall(target["expr"])}
            assert used <= {"instance", "feed", "__rate_interval"}
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))
    assert all(later - earlier <= 1 for earlier, later in pairwise(sorted({y for _, y in cells})))


def test_the_dashboard_holds_no_address_and_no_source_of_ours() -> None:
    """It works wherever it is imported."""
    assert not re.search(r"https?://|localhost|127\.0\.0\.1", json.dumps(DASHBOARD))


def test_the_scrape_configuration_names_the_job_that_alerts_look_for() -> None:
    """And the rules that lie beside it."""
    scrape = yaml.safe_load((PROMETHEUS / "scrape.yml").read_text())
    assert [job["job_name"] for job in scrape["scrape_configs"]] == ["tablefeed"]
    assert all((PROMETHEUS / rules).is_file() for rules in scrape["rule_files"])


def promtool(*arguments: object) -> str:
    """What Prometheus's own checker says; the test is skipped where it is missing."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_alerts_and_the_scrape_configuration() -> None:
    """Expressions, templates, durations."""
    assert f"{len(RULES)} rules found" in promtool("check", "rules", PROMETHEUS / "alerts.yml")
    promtool("check", "config", PROMETHEUS / "scrape.yml")


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    """Scenarios over hours, by Prometheus's own rules."""
    promtool("test", "rules", SCENARIOS)


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """With the variables as Grafana fills them in."""
    asked = [query for _, query in queries()]
    filled = [_VARIABLE.sub(lambda it: "5m" if it[0] == "$__rate_interval" else ".*", query) for query in asked]
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(filled)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", path)
