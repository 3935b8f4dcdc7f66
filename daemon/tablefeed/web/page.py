"""The page at `/` and its files, as they lie in `static/`."""

import hashlib
from importlib.resources import files

from aiohttp import web

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked for anew each time, by its ETag
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
}


def page_routes() -> list[web.RouteDef]:
    """A route for each file. Reads them all."""
    routes = []
    for file in sorted(files("tablefeed.web").joinpath("static").iterdir(), key=lambda file: file.name):
        suffix = "." + file.name.rpartition(".")[2]
        path = "/" if file.name == "index.html" else f"/static/{file.name}"
        routes.append(_route(path, file.read_bytes(), _TYPES[suffix]))
    return routes


def _route(path: str, content: bytes, content_type: str) -> web.RouteDef:
    etag = hashlib.sha256(content).hexdigest()[:32]

    async def serve(request: web.Request) -> web.Response:
        known = {tag.value for tag in request.if_none_match or ()}
        if etag in known or "*" in known:
            response = web.Response(status=304, headers=_HEADERS)
        else:
            response = web.Response(body=content, headers=_HEADERS | {"Content-Type": content_type})
        response.etag = etag
        return response

    return web.get(path, serve)
