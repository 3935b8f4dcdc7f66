"""A configuration on disk for tests of its reading."""

import json
from pathlib import Path
from typing import Any

import pytest

from tablefeed.config import Settings, load
from tablefeed.errors import ConfigInvalid

KEY = "s3cret-K3y-f0r-tests"


def feed(**values: Any) -> dict[str, Any]:
    """The keys of a feed that is right."""
    return {"name": "orders", "directory": "/srv/orders", "datatable_id": "table-1", **values}


class Site:
    """A directory with a configuration."""

    def __init__(self, root: Path) -> None:
        self.path = root / "tablefeed.toml"
        self.default = root / "default.toml"
        self.key = root / "api-key"
        self.key.write_text(KEY)

    @property
    def api(self) -> dict[str, Any]:
        """An [api] section that is right."""
        return {"tenant_id": "tenant-1", "api_key_file": str(self.key)}

    def write(self, **sections: Any) -> Path:
        """The configuration as a file: a right one, with these sections in the place of its own."""
        lines = []
        for name, values in {"feeds": [feed()], "api": self.api, **sections}.items():
            for section in values if isinstance(values, list) else [values]:
                lines += [f"[[{name}]]" if isinstance(values, list) else f"[{name}]"]
                lines += [f"{key} = {json.dumps(value)}" for key, value in section.items()]
        self.path.write_text("\n".join(lines))
        return self.path

    def root_file(self, name: str, text: str) -> Path:
        """Another file beside it."""
        path = self.path.with_name(name)
        path.write_text(text)
        return path

    def load(self, environ: dict[str, str] | None = None, **sections: Any) -> Settings:
        """The settings of such a file and this environment."""
        return self.load_as_is(self.write(**sections), environ)

    def load_as_is(self, path: Path | None, environ: dict[str, str] | None = None) -> Settings:
        """The settings of what is there."""
        return load(path, environ or {}, default=self.default)

    def problems(self, environ: dict[str, str] | None = None, **sections: Any) -> dict[str, str]:
        """What is wrong with such a file and this environment, by path."""
        with pytest.raises(ConfigInvalid) as invalid:
            self.load(environ, **sections)
        return told(invalid.value)


def told(error: ConfigInvalid) -> dict[str, str]:
    """What an error tells, by path; each path at most once."""
    assert len(dict(error.problems)) == len(error.problems)
    return dict(error.problems)
