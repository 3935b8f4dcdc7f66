"""One PUT of one file: the file while it is sent, its way through the connection, and the proof.

put.py      the request and the receipt
body.py     a file as a request's body, and the guard against standing still
checks.py   digests of what is sent, and which of them a store tells
digest.py   the hash of a file that may not have to be sent
source.py   the open file, read and hashed in one go, compared with its version before and after
urls.py     where a file may be sent, and the headers that a URL demands
"""

from tablefeed.upload.checks import Digest
from tablefeed.upload.digest import digest
from tablefeed.upload.put import Progress, Uploader
from tablefeed.upload.urls import grant_headers

__all__ = ["Digest", "Progress", "Uploader", "digest", "grant_headers"]
