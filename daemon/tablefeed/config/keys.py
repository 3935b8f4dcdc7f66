"""Where API keys come from. The key itself is read when it is needed, and never shown."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tablefeed.config.environment import KEY_VARIABLE
from tablefeed.config.model import FeedSettings, Settings
from tablefeed.errors import Exit, Fatal

CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
CREDENTIAL = "api-key"
CREDENTIAL_ORIGIN = Path("/etc/tablefeed/api-key")
"""What our unit makes the credential of. Root alone may read it."""
NO_KEY = (
    "Set api_key_file to the file that holds the API key, "
    f"or set {KEY_VARIABLE}, or give the systemd credential `{CREDENTIAL}`, which our unit makes of {CREDENTIAL_ORIGIN}"
)
"""What to do about a key that comes from nowhere."""
LEAST_TOKEN = 16
"""Characters of a token that nobody guesses."""
_LONGEST_FILE = 65_536


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key that lies in a file; it may be exchanged there at any time."""

    path: Path
    what: str = "API key"
    """What the file holds, for messages."""
    setting: str = "api_key_file"
    """Which setting names the file."""

    @property
    def name(self) -> str:
        """For display."""
        return f"file {self.path}"

    def read(self) -> str:
        """The key. Blocks on the file.

        Raises Fatal when the file is missing, may not be read, or does not hold a key.
        """
        try:
            with self.path.open("rb") as file:
                content = file.read(_LONGEST_FILE)
        except PermissionError:
            raise Fatal(
                f"the {self.what} file {self.path} may not be read by the user that runs tablefeed",
                "Let that user own it with mode 0400, and enter its directory",
                Exit.NO_PERMISSION,
            ) from None
        except FileNotFoundError:
            raise Fatal(
                f"the {self.what} file {self.path} does not exist",
                f"Write the {self.what} to it, or set {self.setting} to the file that holds it",
            ) from None
        except OSError as error:
            raise Fatal(
                f"the {self.what} file {self.path} cannot be read: {error.strerror}",
                f"Set {self.setting} to a file that holds the {self.what}",
            ) from None
        return _checked(content.decode("latin-1"), f"the {self.what} file {self.path}", self.what)

    def world_readable(self) -> bool:
        """Whether every user of the machine may read the file. Blocks; False when it cannot be told."""
        try:
            return bool(self.path.stat().st_mode & stat.S_IROTH)
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class KeyVariable:
    """A key that an environment variable holds."""

    variable: str
    value: str = field(repr=False)

    @property
    def name(self) -> str:
        """For display."""
        return f"environment variable {self.variable}"

    def read(self) -> str:
        """The key.

        Raises Fatal when the variable does not hold a key.
        """
        return _checked(self.value, f"the environment variable {self.variable}")

    def world_readable(self) -> bool:
        """Whether every user of the machine may read the variable."""
        return False


KeySource = KeyFile | KeyVariable


def key_source(settings: Settings, feed: FeedSettings, environ: Mapping[str, str]) -> KeySource:
    """Where the key of a feed comes from.

    Raises Fatal when nothing names one; settings that were loaded with this environment always have one.
    """
    source = find_key(feed.api_key_file or settings.api.api_key_file, environ)
    if source is None:
        raise Fatal(f"the feed {feed.name} has no API key", NO_KEY)
    return source


def key_sources(settings: Settings, environ: Mapping[str, str]) -> dict[str, KeySource]:
    """Where the API keys and webhook secrets of all feeds come from, by name."""
    sources: list[KeySource] = [key_source(settings, feed, environ) for feed in settings.feeds]
    sources += [secret for feed in settings.feeds if (secret := notify_source(feed))]
    return {source.name: source for source in sources}


def token_source(settings: Settings) -> KeyFile | None:
    """Where the token lies that changes over HTTP need; None: nothing can be changed there."""
    path = settings.http.token_file
    return None if path is None else KeyFile(path, "token", "[http] token_file")


def usable_token(source: KeyFile) -> str:
    """The token in the file. Blocks on the file.

    Raises Fatal when the file cannot be read, or holds no token, or one that somebody could guess.
    """
    token = source.read()
    if len(token) < LEAST_TOKEN:
        raise Fatal(
            f"the token in {source.path} is shorter than {LEAST_TOKEN} characters",
            "Write a longer one to it, such as `openssl rand -hex 24` makes",
        )
    return token


def find_key(api_key_file: Path | None, environ: Mapping[str, str]) -> KeySource | None:
    """The file that is configured, else the environment variable, else the systemd credential.

    The credential also stands for the file that our unit makes it of, where that may not be read: so one configuration
    serves root at a terminal and the service.
    """
    credential = _credential(environ)
    if api_key_file == CREDENTIAL_ORIGIN and credential is not None and not os.access(api_key_file, os.R_OK):
        return credential
    if api_key_file is not None:
        return KeyFile(api_key_file)
    if environ.get(KEY_VARIABLE):
        return KeyVariable(KEY_VARIABLE, environ[KEY_VARIABLE])
    return credential


def _credential(environ: Mapping[str, str]) -> KeyFile | None:
    """The credential; None where there is none, or only the blank that our unit puts in the place of a missing file."""
    directory = environ.get(CREDENTIALS_VARIABLE)
    if not directory:
        return None
    path = Path(directory, CREDENTIAL)
    try:
        with path.open("rb") as file:
            return KeyFile(path) if file.read(_LONGEST_FILE).strip() else None
    except PermissionError:
        return KeyFile(path)  # reading it will say so
    except OSError:
        return None


def notify_source(feed: FeedSettings) -> KeyFile | None:
    """Where the secret comes from that signs what a feed's webhook is told; None: nothing is signed."""
    return KeyFile(feed.notify_secret_file, "webhook secret", "notify_secret_file") if feed.notify_secret_file else None


def _checked(content: str, where: str, what: str = "API key") -> str:
    key = content.strip()
    if not key:
        raise Fatal(f"{where} is empty", f"Write the {what} to it")
    if len(key.splitlines()) > 1:
        raise Fatal(f"{where} holds more than one line", f"Let it hold the {what} and nothing else")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise Fatal(
            f"{where} holds spaces or characters that no {what} has",
            f"Write the {what} to it anew, as plain text and nothing else",
        )
    return key
