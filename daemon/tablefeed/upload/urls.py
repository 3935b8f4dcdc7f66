"""Where a file may be sent: the presigned URL, what a redirect leads to, and the headers that a URL demands. Pure."""

import mimetypes

from yarl import URL

from tablefeed.errors import FeedBlocked
from tablefeed.expiry import demanded_headers
from tablefeed.http import is_loopback, origin_of, parse_url


def checked(text: str, *, allow_http: bool) -> URL:
    """A presigned URL that files may be sent to.

    Raises FeedBlocked when it is none: no URL at all, plain http to another machine unless `allow_http`, credentials.
    """
    try:
        url = parse_url(text)
    except ValueError as error:
        raise FeedBlocked(f"the presigned URL cannot be used: {error}", "Check base_url of the feed") from None
    if url.user or url.password:
        raise FeedBlocked(
            f"the presigned URL for {url.host} carries a user name, which none should",
            "Check base_url of the feed",
        )
    if url.scheme != "https" and not is_loopback(url.host) and not allow_http:
        raise FeedBlocked(
            f"the presigned URL for {url.host} is not https, so the data would travel in the clear",
            "Set [upload] allow_http = true if that is what you want",
        )
    return url


def followed(url: URL, target: str, *, allow_http: bool) -> URL:
    """Where a redirect of `url` leads. Raises FeedBlocked as `checked` does, and when it leads away from https."""
    to = checked(target, allow_http=allow_http)
    if url.scheme == "https" and to.scheme != "https":
        raise FeedBlocked(f"{origin_of(url)} redirects to {to.host} without https", "Ask ProcessMind's support")
    return to


def grant_headers(url: str, name: str) -> dict[str, str]:
    """The headers that a PUT of a file with this name must carry for the URL's signature.

    Raises FeedBlocked when the signature covers a header whose value only the signer knows.
    """
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers, unknown = demanded_headers(url, content_type)
    if unknown:
        raise FeedBlocked(
            f"the presigned URL is signed for headers whose values are not known: {', '.join(unknown)}",
            "Ask ProcessMind's support to sign the host header only",
        )
    return dict(headers)


def redirected(url: URL, location: str) -> str:
    """The absolute URL of a `Location` header; empty: it is none."""
    try:
        return str(url.join(URL(location, encoded=True)))
    except ValueError:
        return ""
