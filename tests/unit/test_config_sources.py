"""Where the configuration is read from: file, environment, and both."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.config import KEY, Site, feed, told
from support.intake import unprivileged
from tablefeed.config import load, to_feeds
from tablefeed.config.environment import EnvironmentSource, is_service_link
from tablefeed.errors import ConfigInvalid, Exit, Fatal

SIDECAR = {
    "TABLEFEED_API__TENANT_ID": "tenant-1",
    "TABLEFEED_API_KEY": KEY,
    "TABLEFEED_FEEDS": json.dumps([feed()]),
}
NOWHERE = Path("/nonexistent/tablefeed.toml")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def problems(environ: dict[str, str], path: Path | None = None) -> dict[str, str]:
    """What is wrong with an environment, by path."""
    with pytest.raises(ConfigInvalid) as invalid:
        load(path, environ, default=NOWHERE)
    return told(invalid.value)


def test_a_sidecar_needs_no_file() -> None:
    """The environment alone can configure everything."""
    settings = load(None, SIDECAR, default=NOWHERE)
    assert settings.api.tenant_id == "tenant-1"
    assert to_feeds(settings, SIDECAR)[0].api.key_name == "environment variable TABLEFEED_API_KEY"


def test_the_environment_wins_key_by_key(site: Site) -> None:
    """A variable overrides its key in the file and leaves the other keys of the section."""
    upload = {"concurrency": 4, "stall_timeout": "5s"}
    settings = site.load({"TABLEFEED_UPLOAD__CONCURRENCY": "9", "TABLEFEED_HTTP__LISTEN": ""}, upload=upload)
    assert (settings.upload.concurrency, settings.upload.stall_timeout) == (9, 5.0)
    assert settings.http.address is None


def test_feeds_of_the_environment_replace_those_of_the_file(site: Site) -> None:
    """The list is taken as a whole, even where the file's has errors."""
    settings = site.load({"TABLEFEED_FEEDS": json.dumps([feed(name="b")])}, feeds=[feed(name="a", directory="x")])
    assert [each.name for each in settings.feeds] == ["b"]


def test_a_wrong_list_does_not_bring_back_the_files_feeds(site: Site) -> None:
    """Invalid JSON is one error with its position, told beside the others; the file's feeds are not looked at."""
    found = site.problems({"TABLEFEED_FEEDS": f'[{{"name": "{KEY}"', "TABLEFEED_LOG__LEVEL": "x"}, feeds=[feed(x=1)])
    assert set(found) == {"TABLEFEED_FEEDS", "TABLEFEED_LOG__LEVEL"}
    assert "is not valid JSON" in found["TABLEFEED_FEEDS"]
    assert "line 1, column" in found["TABLEFEED_FEEDS"]
    assert KEY not in str(found)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("[]", "TABLEFEED_FEEDS", "is empty: name at least one feed"),
        ("{}", "TABLEFEED_FEEDS", "must be a list"),
        ("null", "TABLEFEED_FEEDS", "must be a list"),
        ("", "TABLEFEED_FEEDS", "is not valid JSON"),
        ("[" * 100_000, "TABLEFEED_FEEDS", "is nested too deeply"),
        ("[3]", "TABLEFEED_FEEDS[0]", "must hold the keys of a feed"),
        (json.dumps([feed(concurrency="3")]), "TABLEFEED_FEEDS[0] (orders).concurrency", "must be a whole number"),
    ],
)
def test_wrong_lists_are_told_by_the_variables_name(text: str, path: str, message: str) -> None:
    """An error in a value from the environment names the variable."""
    found = problems({**SIDECAR, "TABLEFEED_FEEDS": text})
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize(("text", "value"), [("true", True), ("FALSE", False)])
def test_words_are_truth_values_in_the_environment(text: str, value: bool) -> None:
    """Variables hold only text, so the words count as truth values there."""
    assert load(None, {**SIDECAR, "TABLEFEED_WATCH__POLLING": text}, default=NOWHERE).watch.polling is value


def test_numbers_stay_text_where_text_is_wanted() -> None:
    """An id of digits is not taken for a number, a plain number is a size, and no duration."""
    environ = {**SIDECAR, "TABLEFEED_API__TENANT_ID": "0123", "TABLEFEED_UPLOAD__MAX_SIZE": "1024"}
    settings = load(None, environ, default=NOWHERE)
    assert (settings.api.tenant_id, settings.upload.max_size) == ("0123", 1024)
    found = problems({**SIDECAR, "TABLEFEED_API__URL_LIFETIME": "30"})
    assert 'write it like "30s"' in found["TABLEFEED_API__URL_LIFETIME"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TABLEFEED_API_TENANT_ID", "did you mean TABLEFEED_API__TENANT_ID?"),
        ("TABLEFEED_API__KEY", "did you mean TABLEFEED_API_KEY?"),
        ("TABLEFEED_FEED", "did you mean TABLEFEED_FEEDS?"),
        ("TABLEFEED_FEEDS__0__NAME", "as a JSON list"),
        ("TABLEFEED_UPLOAD", "each key has its own variable, as in TABLEFEED_UPLOAD__CONCURRENCY"),
        ("TABLEFEED_HTTP_PORT", "is unknown"),
        ("TABLEFEED_API__X_SERVICE_HOST", "is unknown"),
        ("TABLEFEED_COLOUR", "is unknown"),
        ("TABLEFEED_", "is unknown"),
    ],
)
def test_unknown_variables_are_refused(name: str, text: str) -> None:
    """An unknown variable is an error that suggests the right name and does not repeat the value."""
    found = problems({**SIDECAR, name: KEY})
    assert list(found) == [name]
    assert text in found[name]
    assert KEY not in str(found)


@pytest.mark.parametrize(
    "name",
    [
        "TABLEFEED_SERVICE_HOST",
        "TABLEFEED_SERVICE_PORT",
        "TABLEFEED_SERVICE_PORT_HTTP",
        "TABLEFEED_PORT",
        "TABLEFEED_PORT_8787_TCP",
        "TABLEFEED_PORT_8787_TCP_ADDR",
        "TABLEFEED_WEB_SERVICE_HOST",
        "TABLEFEED_WEB_PORT",
        "TABLEFEED_WEB_PORT_80_TCP_PROTO",
        "OTHER_TABLEFEED_X",
        "tablefeed_x",
    ],
)
def test_variables_of_others_are_ignored(name: str) -> None:
    """What Kubernetes sets for a Service called tablefeed does not keep its pods from starting."""
    assert load(None, {**SIDECAR, name: "tcp://10.0.0.1:8787"}, default=NOWHERE)


def test_no_setting_is_taken_for_a_service_link() -> None:
    """None of our own variables can be ignored by its name."""
    everything = {f"TABLEFEED_{section}__X_PORT" for section in ("SERVICE", "HTTP", "API")} | set(SIDECAR)
    assert not [name for name in everything if is_service_link(name, "8787")]


@given(st.dictionaries(st.text(max_size=30).map(lambda name: f"TABLEFEED_{name}"), st.text(max_size=30), max_size=4))
def test_any_environment_is_understood_or_told(environ: dict[str, str]) -> None:
    """Whatever is set, the answer is settings or a report, and a report about a variable never shows its value."""
    source = EnvironmentSource(environ)
    told_of = {path for path, _ in source.problems} | set(source.origins.values())
    reserved = {"TABLEFEED_CONFIG", "TABLEFEED_API_KEY"}
    assert told_of == {n for n in environ if n not in reserved and not is_service_link(n, environ[n])}


def test_the_process_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the environment that is handed over counts."""
    monkeypatch.setenv("TABLEFEED_UPLOAD__CONCURRENCY", "3")
    monkeypatch.setenv("TABLEFEED_NONSENSE", "3")
    monkeypatch.setenv("upload", '{"concurrency": 3}')
    assert load(None, SIDECAR, default=NOWHERE).upload.concurrency is None


def test_files_are_looked_for_in_order(site: Site) -> None:
    """--config comes before $TABLEFEED_CONFIG, and that before the default place."""
    settled = {}
    for name in ("given", "variable", "default"):
        settled[name] = site.write(api={**site.api, "tenant_id": name}).rename(site.path.with_name(name))
    settled["default"].rename(site.default)
    environ = {"TABLEFEED_CONFIG": str(settled["variable"])}
    tenants = [
        site.load_as_is(path, environ).api.tenant_id
        for path, environ in ((settled["given"], environ), (None, environ), (None, {"TABLEFEED_CONFIG": ""}))
    ]
    assert tenants == ["given", "variable", "default"]


def test_without_any_configuration_the_places_are_told() -> None:
    """The error names all places that were looked at, and what to do; wrong variables are told with it."""
    found = problems({"TABLEFEED_FEED": "x"})
    assert "TABLEFEED_FEED" in found
    for text in ("--config", "$TABLEFEED_CONFIG", str(NOWHERE), "tablefeed config sample", "tablefeed check"):
        assert text in found[""]


def test_a_missing_file_is_told(site: Site) -> None:
    """A file that was named must exist; the default place is no substitute."""
    site.write().rename(site.default)
    for path, environ in ((NOWHERE, {}), (None, {"TABLEFEED_CONFIG": str(NOWHERE)})):
        with pytest.raises(Fatal, match=f"{NOWHERE} does not exist") as missing:
            site.load_as_is(path, environ)
        assert missing.value.exit_code is Exit.CONFIG


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    """What cannot be read as a file says so."""
    with pytest.raises(Fatal, match="Is a directory"):
        load(tmp_path, {})


def test_an_unreadable_file_is_told(site: Site) -> None:
    """A file without permission ends with its own exit code and names the file."""
    site.write().chmod(0)
    with unprivileged(), pytest.raises(Fatal, match=f"{site.path} may not be read") as refused:
        site.load_as_is(site.path)
    assert refused.value.exit_code is Exit.NO_PERMISSION


@pytest.mark.parametrize(
    ("content", "where", "text"),
    [
        (b"[api]\n[log]\nlevel = warning\n", "line 3, column 9", "text stands in quotes"),
        (b'[api]\nx = "' + KEY.encode(), "end of document", "is not TOML"),
        (b"[api]\n[api]\n", "line 2, column 5", "is not TOML"),
        (b'[api]\ntenant_id = "\xff"\n', "line 2", "is not UTF-8"),
        (b"x = " + b"[" * 100_000, "", "is nested too deeply"),
    ],
)
def test_broken_files_are_told_with_their_place(site: Site, content: bytes, where: str, text: str) -> None:
    """A syntax error has its line, and wrong variables are told with it."""
    site.path.write_bytes(content)
    found = problems({"TABLEFEED_COLOUR": "x"}, site.path)
    assert list(found) == [where, "TABLEFEED_COLOUR"]
    assert text in found[where]
    assert KEY not in str(found)


def test_a_byte_order_mark_is_taken(site: Site) -> None:
    """Editors on Windows put one first."""
    site.path.write_bytes(b"\xef\xbb\xbf" + site.write().read_bytes().replace(b"\n", b"\r\n"))
    assert site.load_as_is(site.path)


def test_the_report_names_its_source(site: Site) -> None:
    """The headline names the file, or the environment where there is no file."""
    for path, source in ((site.write(api={"x": 1}), str(site.path)), (None, "the environment")):
        with pytest.raises(ConfigInvalid) as invalid:
            site.load_as_is(path, {"TABLEFEED_FEEDS": "[]"})
        assert invalid.value.source == source
        assert invalid.value.__cause__ is None
        assert invalid.value.__context__ is None
