"""Digests of what is sent, and which of them a store tells, so that no other need be computed.

A store's first file is hashed with MD5, which the ETag of one plain PUT is. From its answers on: S3 and what is made
like it tell a CRC-64/NVME of the whole object unasked (AWS, "Checking object integrity in Amazon S3"), which costs next
to nothing; where neither comes, nothing could be compared, and nothing is hashed.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from importlib.util import find_spec

_MD5 = re.compile(r'"?([0-9a-fA-F]{32})"?')
_HIDDEN_ETAGS = (
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-aws-kms-key-id",
)


class Digest(StrEnum):
    """A way to tell bytes from others."""

    MD5 = "MD5"
    CRC64NVME = "CRC-64/NVME"


class Hashes:
    """Digests of one file, while it is read."""

    def __init__(self, wanted: Collection[Digest]) -> None:
        """Compute those that are wanted. CRC-64 needs the package awscrt."""
        self._md5 = hashlib.md5(usedforsecurity=False) if Digest.MD5 in wanted else None
        self._crc: int | None = None
        if Digest.CRC64NVME in wanted:
            from awscrt.checksums import crc64nvme

            self._crc, self._more = 0, crc64nvme

    def update(self, chunk: bytes) -> None:
        """Take the next bytes into account."""
        if self._md5 is not None:
            self._md5.update(chunk)
        if self._crc is not None:
            self._crc = self._more(chunk, self._crc)

    def value(self, digest: Digest) -> str | None:
        """An MD5 in hexadecimal, a CRC in Base64; None: it was not wanted."""
        if digest is Digest.MD5:
            return None if self._md5 is None else self._md5.hexdigest()
        return None if self._crc is None else base64.b64encode(self._crc.to_bytes(8, "big")).decode()


class Checks:
    """Knows which digest each store tells."""

    def __init__(self, *, has_crc64: bool = find_spec("awscrt") is not None) -> None:
        """`has_crc64`: whether CRC-64 can be computed here."""
        self._usable = {Digest.MD5, Digest.CRC64NVME} if has_crc64 else {Digest.MD5}
        self._told: dict[str, frozenset[Digest]] = {}

    def wanted(self, origin: str) -> frozenset[Digest]:
        """What to compute of the next file for a store: the cheapest that it told last."""
        return self._told.get(origin, frozenset({Digest.MD5}))

    def learn(self, origin: str, told: Collection[Digest]) -> None:
        """Remember what a store told with a delivery."""
        known = self._usable.intersection(told)
        self._told[origin] = frozenset({Digest.CRC64NVME} if Digest.CRC64NVME in known else known)


def told_by(headers: Mapping[str, str]) -> dict[Digest, str]:
    """The digests of the whole object that an answer to its PUT tells, as `Hashes.value` gives them."""
    told = {}
    crc = headers.get("x-amz-checksum-crc64nvme", "").strip()
    if crc and headers.get("x-amz-checksum-type", "FULL_OBJECT").strip() == "FULL_OBJECT":
        told[Digest.CRC64NVME] = crc
    hidden = headers.get("x-amz-server-side-encryption", "").startswith("aws:kms") or any(
        name in headers for name in _HIDDEN_ETAGS
    )
    if not hidden and (etag := _MD5.fullmatch(headers.get("ETag", "").strip())):
        told[Digest.MD5] = etag[1].lower()
    return told
