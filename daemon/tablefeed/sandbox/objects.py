"""Objects as plain files that a person can browse: `DATA/objects/<datatable>/<time>-<id>-<file name>`.

An object is there whole or not at all: its bytes go to a file in `DATA/incoming`, which takes the object's
name only when it is complete and on the disk. Everything here blocks, so the store runs it in threads.
"""

import hashlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

NAME_MAX = 255
"""Bytes in one file name, on every common file system of Linux."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object, as the store holds it now."""

    key: str
    path: Path
    size: int
    md5: str
    """Hexadecimal."""


class DigestError(Exception):
    """The bytes that came are not those that `Content-MD5` promised."""

    def __init__(self, promised: str, received: str) -> None:
        self.promised = promised
        self.received = received
        super().__init__(f"MD5 promised {promised}, received {received}")


class ObjectFiles:
    """The directory of all objects. One process at a time uses it."""

    def __init__(self, data: Path) -> None:
        self.objects = data / "objects"
        self._incoming = data / "incoming"

    def prepare(self) -> list[Path]:
        """Make the directories. Return what a killed store left unfinished, to be removed by its successor."""
        self.objects.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(exist_ok=True)
        return list(self._incoming.iterdir())

    def location(self, key: str) -> Path:
        """Where the object `key` lies, whether it is there or not.

        There are always two levels below `objects`, whatever slashes and dots the key holds: so no key leads
        out of it, and none needs a directory where another key has its file.
        """
        directory, slash, name = key.partition("/")
        if not slash:
            directory, name = "", key
        return self.objects / file_name(directory) / file_name(name)

    def draft(self, key: str) -> "Draft":
        """A new object in the making; nothing is touched yet."""
        return Draft(key, self._incoming / token_hex(16), self.location(key))


class Draft:
    """The bytes of one PUT. Its methods run in threads, in order; only `discard` may come at any time."""

    def __init__(self, key: str, temporary: Path, final: Path) -> None:
        self._key = key
        self._temporary = temporary
        self._final = final
        self._fd: int | None = None
        self._size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._lock = threading.Lock()
        self._closed = False

    def write(self, chunk: bytes) -> None:
        """Add `chunk` to the file and to the digest."""
        with self._lock:
            self._append(chunk)

    def finish(self, chunk: bytes, promised_md5: str | None) -> StoredObject:
        """Add the last `chunk`, and put the object in its place, over a former one of the same key.

        Raises DigestError when they are not what was promised; then nothing is put anywhere.
        """
        with self._lock:
            fd = self._append(chunk)
            digest = self._md5.hexdigest()
            if promised_md5 not in (None, digest):
                raise DigestError(str(promised_md5), digest)
            os.fsync(fd)
            self._final.parent.mkdir(exist_ok=True)
            self._temporary.replace(self._final)
            self._close()
        return StoredObject(self._key, self._final, self._size, digest)

    def discard(self) -> None:
        """Remove what was written, unless it is finished. Waits for a write that is under way."""
        with self._lock:
            if self._fd is not None:
                self._temporary.unlink(missing_ok=True)
            self._close()

    def _append(self, chunk: bytes) -> int:
        if self._closed:
            raise ValueError("the draft is closed")
        if self._fd is None:
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self._md5.update(chunk)
        self._size += len(chunk)
        return self._fd

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
        self._closed = True


def file_name(part: str) -> str:
    """Return a legal file name for a part of a key: readable, at most `NAME_MAX` bytes, one for each part.

    Control characters, slashes and the percent sign are written as in a URL, as are the names `.` and `..`;
    of a name that is too long the end, up to its suffix, gives way to a digest.
    """
    if part in (".", ".."):
        return part.replace(".", "%2E")
    name = re.sub(r"[\x00-\x1f\x7f/%]", lambda match: f"%{ord(match[0]):02X}", part) or "%"
    if len(name.encode()) <= NAME_MAX:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    suffix = Path(name).suffix
    if len(suffix.encode()) > 16:
        suffix = ""
    tail = f"~{digest}{suffix}"
    room = NAME_MAX - len(tail.encode())
    return name.encode()[:room].decode("utf-8", "ignore") + tail
