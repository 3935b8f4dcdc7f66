"""What is in force, and the schema for editors."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.config import KEY, Site, feed
from tablefeed.config import load_with_origins
from tablefeed.config.fields import DURATION, SIZE
from tablefeed.config.model import SECTIONS, FeedSettings, Section
from tablefeed.config.show import in_force, schema
from tablefeed.units import LARGEST, LONGEST, parse_duration, parse_size


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def shown(site: Site, environ: dict[str, str] | None = None, **sections: Any) -> str:
    """What is in force with this file and this environment."""
    loaded = load_with_origins(site.write(**sections), environ or {}, default=site.default)
    return in_force(loaded.settings, loaded.file, loaded.origins, environ or {})


def test_what_is_shown_is_a_file_that_means_the_same(site: Site) -> None:
    """Durations, sizes, paths, lists and names are written as they are read."""
    sections: dict[str, Any] = {
        "feeds": [
            feed(settle="1.5s", include=['a "quoted" *.csv', "ü*.csv"], order="name", strict=True, archive_keep="7d"),
            feed(name="other", directory="/srv/other", ready="marker", dataset_id="d", api_key_file=str(site.key)),
        ],
        "upload": {"max_size": 1_234_567, "stall_timeout": "90s"},
    }
    text = shown(site, **sections)
    settings = site.load(**sections)
    again = site.root_file("again.toml", text)
    assert site.load_as_is(again) == settings


def test_every_value_tells_where_it_comes_from(site: Site) -> None:
    """The file, the variable, or that it is the default; the key is told by its place alone."""
    text = shown(site, {"TABLEFEED_UPLOAD__CONCURRENCY": "4"}, upload={"stall_timeout": "90s"})
    lines = {line.split(" = ")[0]: line for line in text.splitlines() if " = " in line}
    assert lines["stall_timeout"].endswith(f"# {site.path}")
    assert lines["refresh_margin"].endswith("# default")
    [concurrency] = [line for line in text.splitlines() if line.startswith("concurrency = 4")]
    assert concurrency.endswith("# TABLEFEED_UPLOAD__CONCURRENCY")
    assert f"# its API key: file {site.key}" in text
    assert KEY not in text


def test_of_a_webhook_only_the_origin_is_shown(site: Site) -> None:
    """Whoever knows its path can often send there."""
    text = shown(site, feeds=[feed(notify_url="https://hooks.example:8443/T0-s3cret?key=s3cret")])
    [line] = [line for line in text.splitlines() if line.startswith("notify_url")]
    assert line.startswith('notify_url = "https://hooks.example:8443/[hidden]"')
    assert "s3cret" not in text


def test_feeds_from_the_environment_say_so(site: Site) -> None:
    """One variable sets them all."""
    environ = {"TABLEFEED_FEEDS": '[{"name": "f", "directory": "/srv/f", "datatable_id": "t"}]'}
    assert re.search(r'directory = "/srv/f" +# TABLEFEED_FEEDS', shown(site, environ))


def test_the_schema_knows_every_key_and_allows_no_other() -> None:
    """Each with its meaning, so that an editor can show it."""
    found = schema()
    sections: dict[str, type[Section]] = {**SECTIONS, "feeds": FeedSettings}
    assert set(found["properties"]) == set(sections)
    for model in sections.values():
        described = found["$defs"][model.__name__]
        assert set(described["properties"]) == set(model.model_fields)
        assert described["additionalProperties"] is False
        assert all("description" in it for it in described["properties"].values())
    assert found["additionalProperties"] is False


@given(st.floats(0, LONGEST).map(DURATION.write))
def test_the_pattern_of_durations_allows_each_that_can_be_read(text: str) -> None:
    """What we write, an editor does not mark as wrong."""
    assert re.match(DURATION.pattern, text)
    assert parse_duration(text) >= 0


@pytest.mark.parametrize("text", ["", "30", "soon", "1m1h", "-1s"])
def test_the_pattern_of_durations_refuses_what_cannot_be_read(text: str) -> None:
    """An editor marks it before the daemon does."""
    assert not re.match(DURATION.pattern, text)


@given(st.integers(0, LARGEST // 2))
def test_sizes_are_shown_exactly(size: int) -> None:
    """Whatever is shown means the same number of bytes, and fits the pattern."""
    text = SIZE.write(size)
    assert parse_size(text) == size
    assert re.match(SIZE.pattern, text)
