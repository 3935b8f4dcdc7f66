"""The sample file."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tablefeed.config import load
from tablefeed.config.model import FeedSettings, Settings
from tablefeed.config.sample import sample

CHECKED_IN = Path(__file__).parents[2] / "config" / "tablefeed.toml"


def uncommented(text: str) -> str:
    """The sample with every key in force."""
    return re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE)


def test_the_sample_is_up_to_date() -> None:
    """The file in the repository is what `python -m tablefeed.config.sample` writes."""
    made = subprocess.run([sys.executable, "-m", "tablefeed.config.sample"], capture_output=True, check=True, text=True)
    assert made.stdout == sample() == CHECKED_IN.read_text()
    assert made.stderr == ""


def test_the_sample_loads() -> None:
    """The sample is a right configuration as it stands."""
    assert load(CHECKED_IN, {}).feeds[0].name == "orders"


def test_the_sample_shows_every_key() -> None:
    """With the comment signs taken away, every key of every section is there."""
    tables = tomllib.loads(uncommented(sample()))
    assert list(tables) == list(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        keys = tables[name][0] if name == "feeds" else tables[name]
        model = FeedSettings if name == "feeds" else field.annotation
        assert model is not None
        assert list(keys) == list(model.model_fields)


def test_the_sample_shows_the_defaults(tmp_path: Path) -> None:
    """Taking a comment sign away changes nothing, but for the keys that have no default."""
    path = tmp_path / "tablefeed.toml"
    path.write_text(uncommented(sample()))
    shown, plain = load(path, {}), load(CHECKED_IN, {})
    examples = {"dataset_id", "tenant_id", "api_key_file", "base_url", "notify_url", "notify_secret_file"}
    assert shown.feeds[0].model_dump(exclude=examples) == plain.feeds[0].model_dump(exclude=examples)
    assert shown.model_dump(exclude={"feeds"}) == plain.model_dump(exclude={"feeds"})


def test_every_key_is_described() -> None:
    """Each key says in the sample what it is for."""
    for name, field in Settings.model_fields.items():
        model = FeedSettings if name == "feeds" else field.annotation
        assert model is not None
        assert all(each.description for each in model.model_fields.values())
