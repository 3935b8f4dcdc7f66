"""Where API keys come from, and how they are read."""

import json
from pathlib import Path

import pytest

from support.config import KEY, Site, feed
from support.intake import unprivileged
from tablefeed.cli.check import Mark, _token
from tablefeed.config import KeyFile, KeySource, KeyVariable, key_source, load, token_source
from tablefeed.errors import Exit, Fatal


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """The directory of systemd's credentials, with a key."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    (directory / "api-key").write_text(KEY)
    return directory


def source_of(site: Site, environ: dict[str, str], **sections: object) -> KeySource:
    """Where the key of the first feed comes from."""
    settings = site.load(environ, **sections)
    return key_source(settings, settings.feeds[0], environ)


def test_keys_are_looked_for_in_order(tmp_path: Path, credentials: Path) -> None:
    """The feed's file comes first, then the common file, the variable, and the credential."""
    site = Site(tmp_path)
    environ = {"TABLEFEED_API_KEY": "k", "CREDENTIALS_DIRECTORY": str(credentials)}
    own, common = tmp_path / "own", tmp_path / "common"
    api = {"tenant_id": "t"}
    assert source_of(
        site, environ, api={**api, "api_key_file": str(common)}, feeds=[feed(api_key_file=str(own))]
    ) == KeyFile(own)
    assert source_of(site, environ, api={**api, "api_key_file": str(common)}) == KeyFile(common)
    assert source_of(site, environ, api=api) == KeyVariable("TABLEFEED_API_KEY", "k")
    environ["TABLEFEED_API_KEY"] = ""
    assert source_of(site, environ, api=api) == KeyFile(credentials / "api-key")


def test_a_credential_must_exist_to_count(tmp_path: Path, credentials: Path) -> None:
    """A service with other credentials than ours has no key."""
    (credentials / "api-key").rename(credentials / "other")
    found = Site(tmp_path).problems({"CREDENTIALS_DIRECTORY": str(credentials)}, api={"tenant_id": "t"})
    assert list(found) == ["api.api_key_file"]


def test_a_blank_credential_does_not_count(tmp_path: Path, credentials: Path) -> None:
    """Where the unit found no file to make the credential of, what is told is which file to write."""
    (credentials / "api-key").write_text("\n")
    found = Site(tmp_path).problems({"CREDENTIALS_DIRECTORY": str(credentials)}, api={"tenant_id": "t"})
    assert "/etc/tablefeed/api-key" in found["api.api_key_file"]


def test_the_credential_stands_for_the_file_that_it_was_made_of(
    tmp_path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service takes its copy where the file may not be read, and no copy of another file; root takes the file."""
    site = Site(tmp_path)
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    origin = tmp_path / "origin"
    monkeypatch.setattr("tablefeed.config.keys.CREDENTIAL_ORIGIN", origin)
    api = {"tenant_id": "t", "api_key_file": str(origin)}
    assert source_of(site, environ, api=api) == KeyFile(credentials / "api-key")
    assert source_of(site, {}, api=api) == KeyFile(origin)
    origin.write_text(KEY)
    assert source_of(site, environ, api=api) == KeyFile(origin)
    other = str(tmp_path / "missing")
    assert source_of(site, environ, api={**api, "api_key_file": other}) == KeyFile(Path(other))


def test_a_feed_without_key_is_fatal_in_another_environment(tmp_path: Path) -> None:
    """Settings used with an environment that lost the key say so."""
    environ = {
        "TABLEFEED_API__TENANT_ID": "t",
        "TABLEFEED_API_KEY": KEY,
        "TABLEFEED_FEEDS": json.dumps([feed()]),
    }
    settings = load(None, environ, default=tmp_path / "none")
    with pytest.raises(Fatal, match="orders has no API key"):
        key_source(settings, settings.feeds[0], {})


@pytest.mark.parametrize("content", [KEY, f"{KEY}\n", f"  {KEY}\r\n\n"])
def test_space_around_a_key_is_dropped(tmp_path: Path, content: str) -> None:
    """Editors and `echo` end a file with a newline, which is no part of the key."""
    path = tmp_path / "api-key"
    path.write_text(content)
    assert KeyFile(path).read() == KEY
    assert KeyVariable("TABLEFEED_API_KEY", content).read() == KEY


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (f"{KEY}\n{KEY}", "holds more than one line"),
        (f"{KEY} {KEY}", "holds spaces or characters that no API key has"),
        (f"{KEY}\0", "holds spaces or characters"),
        (f"\ufeff{KEY}", "holds spaces or characters"),
        (f"{KEY}é", "holds spaces or characters"),
    ],
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: str, text: str) -> None:
    """The refusal names the place and the remedy, and shows nothing of the content."""
    path = tmp_path / "api-key"
    path.write_text(content)
    for source, place in ((KeyFile(path), str(path)), (KeyVariable("TABLEFEED_API_KEY", content), "TABLEFEED_API_KEY")):
        with pytest.raises(Fatal, match=text) as refused:
            source.read()
        assert place in str(refused.value)
        assert refused.value.remedy
        assert refused.value.exit_code is Exit.CONFIG
        assert KEY not in str(refused.value)


def test_a_missing_key_file_is_told(tmp_path: Path) -> None:
    """The refusal names the file and what to do."""
    with pytest.raises(Fatal, match=r"none does not exist. Write the API key to it"):
        KeyFile(tmp_path / "none").read()


def test_a_directory_is_no_key_file(tmp_path: Path) -> None:
    """What cannot be read as a file says so."""
    with pytest.raises(Fatal, match="Is a directory"):
        KeyFile(tmp_path).read()


def test_an_unreadable_key_file_is_told(tmp_path: Path) -> None:
    """A key file without permission ends with its own exit code and names the file."""
    path = tmp_path / "api-key"
    path.write_text(KEY)
    path.chmod(0)
    with unprivileged(), pytest.raises(Fatal, match=f"{path} may not be read") as refused:
        KeyFile(path).read()
    assert refused.value.exit_code is Exit.NO_PERMISSION


@pytest.mark.parametrize(("mode", "open_to_all"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_files_that_everybody_can_read_are_known(tmp_path: Path, mode: int, open_to_all: bool) -> None:
    """Only the permission of others counts: a group may be shared on purpose."""
    path = tmp_path / "api-key"
    path.write_text(KEY)
    path.chmod(mode)
    assert KeyFile(path).world_readable() is open_to_all


def test_what_is_no_file_is_not_readable_by_all(tmp_path: Path) -> None:
    """A missing file and a variable are open to nobody."""
    assert not KeyFile(tmp_path / "none").world_readable()
    assert not KeyVariable("TABLEFEED_API_KEY", KEY).world_readable()


def test_a_key_is_never_shown() -> None:
    """Neither the text of a source nor its name holds the key."""
    source = KeyVariable("TABLEFEED_API_KEY", KEY)
    assert KEY not in f"{source!r} {source} {source.name}"
    assert source.name == "environment variable TABLEFEED_API_KEY"


@pytest.mark.parametrize(
    ("content", "mode", "marks", "said"),
    [
        (KEY * 2, 0o600, [Mark.GOOD], "holds the token for changes over HTTP"),
        (KEY * 2, 0o644, [Mark.GOOD, Mark.NOTE], "is readable by everybody"),
        ("short", 0o600, [Mark.BAD], "is shorter than 16 characters"),
        ("", 0o600, [Mark.BAD], "is empty"),
        (f"{KEY}\n{KEY}", 0o600, [Mark.BAD], "holds more than one line"),
    ],
)
def test_check_looks_at_the_token(tmp_path: Path, content: str, mode: int, marks: list[Mark], said: str) -> None:
    """A good one is told, one that everybody may read is noted, one that will not do is wrong; none is shown."""
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    settings = Site(tmp_path).load({"TABLEFEED_API_KEY": KEY}, api={"tenant_id": "t"}, http={"token_file": str(path)})
    found = _token(token_source(settings))
    assert [finding.mark for finding in found] == marks
    assert said in found[-1].what
    assert KEY not in str(found)
    assert all("API key" not in finding.what + finding.remedy for finding in found)


def test_without_a_token_file_there_is_nothing_to_check(tmp_path: Path) -> None:
    """It is no fault."""
    settings = Site(tmp_path).load({"TABLEFEED_API_KEY": KEY}, api={"tenant_id": "t"})
    assert _token(token_source(settings)) == []
