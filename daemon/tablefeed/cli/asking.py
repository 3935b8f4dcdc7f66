"""Asking a running daemon over HTTP, without proxies and without anything that takes long to import."""

import http.client
from typing import Any

from tablefeed.errors import TablefeedError

PATIENCE = 5.0
"""Seconds that the daemon gets for each step of its answer."""
_LARGEST = 64 * 2**20


class NoAnswerError(TablefeedError):
    """The daemon did not answer; the text says why."""


def ask(address: tuple[str, int], path: str, patience: float = PATIENCE) -> bytes:
    """What the daemon at this address answers to a GET. Raises NoAnswerError."""
    host, port = address
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    connection = http.client.HTTPConnection(host, port, timeout=patience)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(_LARGEST)
    except TimeoutError:
        raise NoAnswerError(f"nothing answered at {place} within {patience:g} s") from None
    except ConnectionRefusedError:
        raise NoAnswerError(f"nothing listens at {place}") from None
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise NoAnswerError(f"no answer came from {place}: {_cause(error)}") from None
    finally:
        connection.close()
    if response.getheader("Server") != "tablefeed":
        raise NoAnswerError(f"what answers at {place} is no tablefeed")
    if response.status != 200:
        raise NoAnswerError(f"{place} answered {response.status}")
    return body


def _cause(error: Any) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
