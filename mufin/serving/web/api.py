"""What the routes do: read a request, ask the device thread, write the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Annotated, Any

from fastapi import Path as InPath
from fastapi import Query as InQuery
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from mufin.errors import shown
from mufin.serving.query import QueryError
from mufin.serving.web import limits, metrics, pages, schemas
from mufin.serving.web.body import Body, Held
from mufin.serving.web.content import answers_content, product_content, result_content
from mufin.serving.web.engine import Engine
from mufin.serving.web.fetch import ImageFetcher
from mufin.serving.web.guard import DEADLINE
from mufin.serving.web.limits import Settings
from mufin.serving.web.questions import Pictures, product_of, query_of
from mufin.serving.web.refusals import Refusal, json_response
from mufin.serving.web.swap import Swaps

MANY = 100  # answers whose JSON is made outside of the event loop
Uid = Annotated[str, InPath(min_length=1, max_length=limits.UID, description="id of a product")]


class Api:
    """The functions of the routes, and what they share."""

    def __init__(self, engine: Engine, swaps: Swaps, settings: Settings):
        self.engine, self.swaps, self.settings = engine, swaps, settings
        self.fetcher = ImageFetcher(settings)
        self.pictures = Pictures(settings, self.fetcher)
        self.held = Held(settings.held_bytes)

    def body(self, request: Request) -> Body:
        return Body(request, self.settings, self.held)

    async def recommend(self, request: Request) -> Response:
        """Recommends products for products of the catalog, a new product, or both together."""
        start = time.monotonic()
        with self.body(request) as body:
            with self.engine.expecting():
                parsed = await body.parsed("query")
                question = await body.valid(schemas.Question, parsed.content)
                query = await query_of(question, self.pictures, parsed.files)
            deadline = request.scope[DEADLINE]
            [result], model = await asyncio.wrap_future(self.engine.ask([query], deadline))
        if isinstance(result, (QueryError, Refusal)):
            raise result
        content = {"answers": await _made(answers_content, len(result[0]), *result)}
        return json_response(content | {"model": model, "milliseconds": _since(start)})

    async def recommend_batch(self, request: Request) -> Response:
        """Answers many questions at once; a bad one has its error in place of answers."""
        start = time.monotonic()
        with self.body(request) as body:
            with self.engine.expecting():
                parsed = await body.parsed()
                questions = (await body.valid(schemas.Questions, parsed.content)).queries
                found = await asyncio.gather(*(self._query(q) for q in questions))
            good = [query for query in found if not isinstance(query, Refusal)]
            deadline = request.scope[DEADLINE]
            results, model = ([], self.engine.model)
            if good:
                results, model = await asyncio.wrap_future(self.engine.ask(good, deadline))
        answered = iter(results)
        merged = [query if isinstance(query, Refusal) else next(answered) for query in found]
        content = await _made(_contents, sum(q.k for q in questions), merged)
        return json_response({"results": content, "model": model, "milliseconds": _since(start)})

    async def _query(self, question: schemas.Question) -> Any:
        try:
            return await query_of(question, self.pictures)
        except Refusal as refusal:
            if refusal.status == 503:
                raise
            return refusal

    async def products(
        self,
        request: Request,
        text: Annotated[str, InQuery(max_length=limits.TEXT, examples=["mug"])] = "",
        limit: Annotated[int, InQuery(ge=1, le=limits.FOUND)] = 20,
    ) -> Response:
        """Finds products whose title or id contains a text."""
        found = await self._look(request, lambda service: service.find(text, limit))
        return json_response({"products": [product_content(product) for product in found]})

    async def product(self, request: Request, uid: Uid) -> Response:
        """Says what is known of a product."""
        found = await self._look(request, lambda service: service.product(uid))
        if found is None:
            raise _unknown(uid)
        return json_response(product_content(found))

    async def put_product(self, request: Request, uid: Uid) -> Response:
        """Adds or replaces a product; it can be an answer as soon as this returns."""
        with self.body(request) as body:
            parsed = await body.parsed("product")
            # The uid of the path obeys the same rules as one of a body.
            content = parsed.content
            if isinstance(content, dict):
                if "uid" in content:
                    raise Refusal(422, "'uid' is not a field here; it is in the path", "uid")
                content = content | {"uid": uid}
            given = await body.valid(schemas.NamedProductIn, content)
            product = await product_of(uid, given, self.pictures, parsed.files)
            try:
                changed = await self._change(request, [product], [])
            except QueryError as error:  # its field begins with the number of the product
                raise QueryError(error.field.partition(".")[2], str(error)) from None
        [now] = changed.products
        if now is None:  # deleted in the same transaction
            raise _unknown(uid)
        return json_response(product_content(now))

    async def delete_product(self, request: Request, uid: Uid) -> Response:
        """Takes a product out of all answers."""
        changed = await self._change(request, [], [uid])
        if not changed.deleted:
            raise _unknown(uid)
        return Response(status_code=204)

    async def change_products(self, request: Request) -> Response:
        """Adds, replaces and deletes products in one transaction."""
        with self.body(request) as body:
            given = await body.valid(schemas.ChangesIn, (await body.parsed()).content)
            upserts = [product.uid for product in given.upsert]
            if twice := [uid for uid in upserts if uid in set(given.delete)]:
                text = f"{shown(twice[0])} is in upsert and in delete; leave one out"
                raise Refusal(422, text, "delete")
            products = []
            for number, product in enumerate(given.upsert):
                try:
                    products.append(await product_of(product.uid, product, self.pictures))
                except Refusal as refusal:
                    raise refusal.at(f"upsert.{number}") from None
                except QueryError as error:
                    raise QueryError(f"upsert.{number}.{error.field}", str(error)) from None
            try:
                changed = await self._change(request, products, given.delete)
            except QueryError as error:
                raise QueryError(f"upsert.{error.field}", str(error)) from None
        return json_response({"upserted": changed.upserted, "deleted": changed.deleted})

    async def picture(
        self, request: Request, key: Annotated[str, InPath(min_length=1, max_length=limits.UID)]
    ) -> Response:
        """A picture that a product names; it never changes."""
        content = await self._look(request, lambda service: service.picture(key))
        if content is None:
            raise Refusal(404, f"no product has the picture {shown(key)}", "key")
        return pages.picture(content, request)

    async def model(self, request: Request) -> Response:
        """Says which model answers and what it can do."""
        return json_response(await self._look(request, lambda service: service.info()))

    async def swap(self, request: Request) -> Response:
        """Loads the model of a folder on the server; it answers once it is loaded.

        Questions are answered by the present model until then, also if the folder cannot be loaded.
        """
        with self.body(request) as body:
            folder = (await body.valid(schemas.ModelIn, (await body.parsed()).content)).folder
        future: Future = self.swaps.begin(folder)
        return json_response(await asyncio.wrap_future(future))

    async def health(self) -> Response:
        """The process lives."""
        return json_response({"status": "ok"})

    async def readiness(self) -> Response:
        """A model is loaded, and the server does not stop."""
        if not self.engine.ready:
            state = "stopping" if self.engine.draining else "loading"
            raise Refusal(
                503, f"the server is {state}; ask again later", headers={"Retry-After": "1"}
            )
        return json_response({"status": "ready"})

    async def metrics(self) -> Response:
        """Metrics for Prometheus."""
        return PlainTextResponse(self.engine.metrics.text(), media_type=metrics.TEXT)

    async def _look(self, request: Request, function: Callable) -> Any:
        return await asyncio.wrap_future(self.engine.look(function, request.scope[DEADLINE]))

    async def _change(self, request: Request, upserts: list, deletes: list) -> Any:
        future: Future = self.engine.change(upserts, deletes, request.scope[DEADLINE])
        return await asyncio.wrap_future(future)


async def _made(function: Callable, answers: int, *args: Any) -> Any:
    if answers > MANY:
        return await asyncio.to_thread(function, *args)
    return function(*args)


def _contents(results: list) -> list[dict]:
    return [result_content(result) for result in results]


def _since(start: float) -> float:
    return round(1000 * (time.monotonic() - start), 3)


def _unknown(uid: str) -> Refusal:
    return Refusal(404, f"there is no product {shown(uid)}; GET /v1/products finds products", "uid")
