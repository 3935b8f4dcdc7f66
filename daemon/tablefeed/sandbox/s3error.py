"""What an S3 store answers when it refuses: a status, a code that programs read and a message for people.

Codes and messages follow "Error responses" in Amazon's S3 API reference.
"""

from collections.abc import Mapping
from html import escape
from http import HTTPStatus


class S3Error(Exception):
    """One refusal. `details` become further elements of the XML, in their order."""

    def __init__(self, status: HTTPStatus, code: str, message: str, details: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.details = dict(details or {})
        super().__init__(f"{code}: {message}")

    def xml(self, resource: str, request_id: str) -> bytes:
        """The body of the answer, UTF-8. `resource` is the path as it was sent, without its query."""
        elements = {
            "Code": self.code,
            "Message": self.message,
            **self.details,
            "Resource": resource,
            "RequestId": request_id,
        }
        inner = "".join(f"<{name}>{escape(text, quote=False)}</{name}>" for name, text in elements.items())
        document = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'
        return document.encode("utf-8", "replace")


def access_denied(message: str, details: Mapping[str, str] | None = None) -> S3Error:
    """403, the code that S3 uses for most refusals of a presigned URL; only the message tells them apart."""
    return S3Error(HTTPStatus.FORBIDDEN, "AccessDenied", message, details)


def bad_query(message: str) -> S3Error:
    """400: the `X-Amz-*` parameters make no sense, whatever the signature."""
    return S3Error(HTTPStatus.BAD_REQUEST, "AuthorizationQueryParametersError", message)
