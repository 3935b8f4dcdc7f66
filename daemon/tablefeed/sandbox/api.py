"""ProcessMind's API, as far as uploads need it. Errors are JSON with a `message`.

Its documents name no status codes: a wrong key is refused as Amazon's API Gateway does it, the rest is the
plain reading of HTTP.
"""

import hmac
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from secrets import token_hex
from typing import Final

from aiohttp import web

from tablefeed.sandbox import catalog
from tablefeed.sandbox.store import Store
from tablefeed.sandbox.upload_query import DEMANDED, QueryError, UploadQuery, parse

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiError(Exception):
    """One refusal of the API."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        super().__init__(message)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every refusal into JSON, that of an unknown path too."""
    try:
        return await handler(request)
    except ApiError as error:
        return web.json_response({"message": str(error)}, status=error.status)
    except web.HTTPException as error:
        return web.json_response({"message": error.reason}, status=error.status)


class Api:
    """The calls of one tenant. `clock` gives Unix seconds; `longest_lifetime` (seconds) limits every grant.

    `strict`: the presign call demands the parameters that the vendor's README calls required.
    """

    def __init__(
        self,
        store: Store,
        *,
        api_key: str,
        tenant_id: str,
        longest_lifetime: int,
        strict: bool,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._api_key = api_key
        self._tenant_id = tenant_id
        self._longest_lifetime = longest_lifetime
        self._demanded: Final = DEMANDED if strict else ()
        self._clock = clock

    def app(self) -> web.Application:
        """The API, to be mounted at `/tenant` of an application that has `answer_errors`."""
        app = web.Application(middlewares=[self._authorize])
        tenant = "/{tenant}"
        app.add_routes(
            [
                web.get(tenant, self._tenant),
                web.get(f"{tenant}/organization", self._organization),
                web.get(f"{tenant}/datasets", self._datasets),
                web.get(f"{tenant}/datasets/{{dataset}}", self._dataset),
                web.get(f"{tenant}/datatables", self._datatables),
                web.get(f"{tenant}/datatable/{{datatable}}", self._datatable),
                web.get(f"{tenant}/datatable/{{datatable}}/uploads/presignedurl", self._presigned_url),
            ]
        )
        return app

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        key = request.headers.get("x-api-key")
        if not key:
            raise ApiError(HTTPStatus.UNAUTHORIZED, "The header x-api-key is missing.")
        if not hmac.compare_digest(key.encode("utf-8", "surrogateescape"), self._api_key.encode()):
            raise ApiError(HTTPStatus.FORBIDDEN, "Forbidden")
        tenant_id = request.match_info.get("tenant")
        if tenant_id not in (None, self._tenant_id):
            raise ApiError(HTTPStatus.NOT_FOUND, f"There is no tenant {tenant_id}.")
        return await handler(request)

    async def _tenant(self, _request: web.Request) -> web.Response:
        return web.json_response({"id": self._tenant_id, **catalog.TENANT})

    async def _organization(self, _request: web.Request) -> web.Response:
        return web.json_response(catalog.ORGANIZATION)

    async def _datasets(self, _request: web.Request) -> web.Response:
        return web.json_response([dataset.as_row() for dataset in catalog.DATASETS])

    async def _dataset(self, request: web.Request) -> web.Response:
        return web.json_response(_dataset(request.match_info["dataset"]).as_json())

    async def _datatables(self, _request: web.Request) -> web.Response:
        return web.json_response([table.as_json() for table in catalog.datatables()])

    async def _datatable(self, request: web.Request) -> web.Response:
        return web.json_response(_datatable(request.match_info["datatable"]).as_json())

    async def _presigned_url(self, request: web.Request) -> web.Response:
        table = _datatable(request.match_info["datatable"])
        try:
            query = parse(request.query, self._demanded)
        except QueryError as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"{error}.") from error
        _check_dataset(query, table)
        url = self._store.grant(
            # the way the caller came is a way that works for it
            origin=f"{request.scheme}://{request.host}",
            key=object_key(table.id, query.file_name, self._clock()),
            lifetime=min(query.lifetime or self._longest_lifetime, self._longest_lifetime),
        )
        return web.json_response({"PreSignedUploadUrl": url})


def object_key(datatable_id: str, file_name: str | None, now: float) -> str:
    """Return a key that no other grant has: `<datatable>/<time>-<id>-<file name>`."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    return f"{datatable_id}/{stamp}-{token_hex(6)}-{file_name or 'unnamed'}"


def _datatable(datatable_id: str) -> catalog.Datatable:
    table = catalog.find_datatable(datatable_id)
    if table is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"There is no datatable {datatable_id}.")
    return table


def _dataset(dataset_id: str) -> catalog.Dataset:
    dataset = catalog.find_dataset(dataset_id)
    if dataset is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"There is no dataset {dataset_id}.")
    return dataset


def _check_dataset(query: UploadQuery, table: catalog.Datatable) -> None:
    if query.dataset_id is not None and not _dataset(query.dataset_id).holds(table.id):
        raise ApiError(
            HTTPStatus.BAD_REQUEST,
            f"The dataset {query.dataset_id} does not contain the datatable {table.id}.",
        )
