"""The OpenAPI description: bodies, which the routes read themselves, errors, and the key."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mufin.serving.web import schemas
from mufin.serving.web.limits import IMAGES

ABOUT = (
    "Recommends related products for products of the catalog and for new ones, by their texts and "
    "pictures. Every error is one sentence with the field that is wrong. The header "
    "X-Request-Timeout bounds the seconds of a request."
)
QUESTION = {"uids": ["B000000000"], "k": 5}
PRODUCT = {
    "title": "Mug, small",
    "texts": ["A mug of stoneware for 0.2 l."],
    "category": ["Kitchen", "Mugs"],
    "attributes": {"price": 9.5},
}
EXAMPLES: dict[type[BaseModel], dict] = {
    schemas.Question: QUESTION,
    schemas.Questions: {"queries": [QUESTION, {"title": "Mug, small", "k": 5}]},
    schemas.ProductIn: PRODUCT,
    schemas.ChangesIn: {"upsert": [{"uid": "new-1"} | PRODUCT], "delete": ["B000000001"]},
    schemas.ModelIn: {"folder": "."},
}
WHY = {
    400: "The body cannot be read.",
    401: "The API key is missing or wrong.",
    403: "The request comes from a page of another site, or for another host.",
    404: "There is no such product or picture.",
    409: "Another model is being loaded.",
    413: "The body or a picture is too large.",
    415: "The Content-Type or Content-Encoding is not read.",
    422: "A field is wrong.",
    503: "Too much is under way, or a model is loaded, or the server stops; see Retry-After.",
    504: "The time is up.",
}
Responses = dict[int | str, dict[str, Any]]
REFUSALS: Responses = {
    status: {"model": schemas.Error, "description": why} for status, why in WHY.items()
}
REFERENCE = "#/components/schemas/{model}"


def json_body(model: type[BaseModel]) -> dict:
    """An OpenAPI body of JSON."""
    schema = {"$ref": REFERENCE.format(model=model.__name__)}
    content = {"schema": schema, "example": EXAMPLES[model]}
    return {"required": True, "content": {"application/json": content}}


def or_form(model: type[BaseModel], part: str) -> dict:
    """An OpenAPI body of JSON, or of a form with that JSON in the field `part` and files."""
    body = json_body(model)
    file = {"type": "string", "format": "binary"}
    body["content"]["multipart/form-data"] = {
        "schema": {
            "type": "object",
            "properties": {
                part: {"$ref": REFERENCE.format(model=model.__name__)},
                "images": {"type": "array", "items": file, "maxItems": IMAGES},
            },
            "additionalProperties": False,
        },
        "encoding": {part: {"contentType": "application/json"}},
    }
    return body


def describe(app: FastAPI, keyed: bool) -> None:
    """Make `app.openapi` return the description with the bodies."""

    def openapi() -> dict:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, keyed)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _described(app: FastAPI, keyed: bool) -> dict:
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    _, bodies = models_json_schema(
        [(model, "validation") for model in EXAMPLES], ref_template=REFERENCE
    )
    components = found.setdefault("components", {})
    components.setdefault("schemas", {}).update(bodies["$defs"])
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    # Parameters are refused as all else is, and not as FastAPI describes it
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    return found


def for_swagger(content: dict) -> dict:
    """The description in OpenAPI 3.0, the newest that the packaged Swagger UI shows."""
    return _older(content) | {"openapi": "3.0.3"}


def _older(value: Any) -> Any:
    """Schemas of 3.1 as those of 3.0: no type null, and one example."""
    if isinstance(value, list):
        return [_older(item) for item in value]
    if not isinstance(value, dict):
        return value
    out = {name: _older(item) for name, item in value.items()}
    if isinstance(kinds := out.get("anyOf"), list) and {"type": "null"} in kinds:
        rest = [kind for kind in kinds if kind != {"type": "null"}]
        del out["anyOf"]
        out |= (rest[0] if len(rest) == 1 else {"anyOf": rest}) | {"nullable": True}
    if isinstance(examples := out.get("examples"), list) and examples:
        del out["examples"]
        out["example"] = examples[0]
    return out
