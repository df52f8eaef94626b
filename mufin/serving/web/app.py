"""The routes of `mufin serve`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from mufin.errors import shown
from mufin.serving.query import QueryError
from mufin.serving.web import description, pages, schemas
from mufin.serving.web.api import Api
from mufin.serving.web.description import REFUSALS, Responses, json_body, or_form
from mufin.serving.web.engine import Engine
from mufin.serving.web.guard import Guard
from mufin.serving.web.limits import Settings
from mufin.serving.web.refusals import Refusal, answer, error_content, json_response
from mufin.serving.web.schemas import refused
from mufin.serving.web.swap import Swaps


def create_app(engine: Engine, swaps: Swaps, settings: Settings) -> FastAPI:
    """The ASGI application; its end stops the engine after all that was accepted."""
    api = Api(engine, swaps, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.stop, settings.seconds)
        api.fetcher.close()

    app = FastAPI(
        title="MUFIN recommender",
        description=description.ABOUT,
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    _add_routes(app, api)
    _add_pages(app)
    app.add_middleware(Guard, settings=settings, metrics=engine.metrics)
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(QueryError, _on_query_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    description.describe(app, keyed=settings.key is not None)
    return app


def _add_routes(app: FastAPI, api: Api) -> None:
    s = schemas
    question, product = or_form(s.Question, "query"), or_form(s.ProductIn, "product")
    for method, path, function, model, body in (
        ("POST", "/v1/recommend", api.recommend, s.Recommendation, question),
        ("POST", "/v1/recommend/batch", api.recommend_batch, s.Recommendations, s.Questions),
        ("POST", "/v1/products/batch", api.change_products, s.ChangesOut, s.ChangesIn),
        ("GET", "/v1/products", api.products, s.ProductsOut, None),
        ("GET", "/v1/products/{uid:path}", api.product, s.ProductOut, None),
        ("PUT", "/v1/products/{uid:path}", api.put_product, s.ProductOut, product),
        ("DELETE", "/v1/products/{uid:path}", api.delete_product, None, None),
        ("GET", "/v1/model", api.model, dict, None),
        ("POST", "/v1/model", api.swap, dict, s.ModelIn),
        ("GET", "/healthz", api.health, s.Status, None),
        ("GET", "/readyz", api.readiness, s.Status, None),
    ):
        extra = None
        if body is not None:
            extra = {"requestBody": body if isinstance(body, dict) else json_body(body)}
        ok: Responses = {200: {"model": model}} if model else {}
        app.add_api_route(
            path,
            function,
            methods=[method],
            status_code=200 if model else 204,
            response_model=None,
            responses=ok | REFUSALS,
            openapi_extra=extra,
        )
    kinds = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
    shown_picture: Responses = {200: {"content": kinds}}
    app.add_api_route(
        "/v1/pictures/{key:path}",
        api.picture,
        response_class=Response,
        responses=shown_picture | REFUSALS,
    )
    app.add_api_route("/metrics", api.metrics, response_class=PlainTextResponse)
    for path, function in (("/healthz", api.health), ("/readyz", api.readiness)):
        app.add_api_route(path, function, methods=["HEAD"], include_in_schema=False)


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return pages.page_file("index.html", request)

    @app.get("/static/{name:path}", include_in_schema=False)
    async def static(name: str, request: Request) -> Response:
        return pages.page_file(name, request)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return pages.docs_file("", request)

    @app.get("/docs/openapi.json", include_in_schema=False)
    async def docs_description() -> Response:
        return json_response(description.for_swagger(app.openapi()))

    @app.get("/docs/{name:path}", include_in_schema=False)
    async def docs_file(name: str, request: Request) -> Response:
        return pages.docs_file(name, request)


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return answer(error)


async def _on_query_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, QueryError)
    return json_response(error_content(str(error), error.field), 422)


async def _on_http(request: Request, error: Exception) -> Response:
    """No such path, or another method."""
    assert isinstance(error, HTTPException)
    path, method = shown(request.url.path), request.method
    text = str(error.detail)
    if error.status_code == 404:
        text = f"there is no {path} here; GET /docs describes the API"
    elif error.status_code == 405:
        text = f"{path} cannot be asked by {shown(method)}; GET /docs describes the API"
    return answer(Refusal(error.status_code, text, headers=error.headers))


async def _on_invalid(request: Request, error: Exception) -> Response:
    """A parameter of the path or behind the question mark."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return answer(refused(first | {"loc": first["loc"][1:]}))
