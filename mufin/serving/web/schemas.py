"""The JSON of requests and answers, with bounds and examples, as /docs shows them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)

from mufin.errors import shown
from mufin.serving.live_product import LONGEST_UID
from mufin.serving.web import limits
from mufin.serving.web.refusals import Refusal

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
BOUNDS = ("gt", "gte", "lt", "lte")
SCALAR = {"anyOf": [{"type": "string", "maxLength": limits.TEXT}, {"type": "number"}]}
SCALAR["anyOf"].append({"type": "boolean"})


def _plain(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("it must not have control characters")
    return text


def _scalar(value: object) -> object:
    if isinstance(value, str):
        if len(value) > limits.TEXT or not value.isascii() and not _utf8(value):
            raise ValueError(f"a text must be UTF-8 of at most {limits.TEXT} characters")
    elif isinstance(value, bool):
        pass
    elif not isinstance(value, (int, float)):
        raise ValueError("a value must be a text, a number, true or false")
    elif not math.isfinite(value) if isinstance(value, float) else abs(value) > limits.LARGEST:
        raise ValueError(f"a number must be finite, and a whole one at most {limits.LARGEST}")
    return value


def _utf8(text: str) -> bool:
    try:
        text.encode()
        return True
    except UnicodeError:
        return False


def _condition(value: object) -> object:
    """A scalar, a list of scalars, or bounds."""
    if isinstance(value, list):
        if not 1 <= len(value) <= limits.VALUES:
            raise ValueError(f"a list must have 1 to {limits.VALUES} values")
        return [_scalar(item) for item in value]
    if isinstance(value, Mapping):
        if not value or not set(value) <= set(BOUNDS):
            raise ValueError(f"bounds must be some of {', '.join(BOUNDS)}")
        if any(isinstance(v, (bool, str)) for v in value.values()):
            raise ValueError("a bound must be a number")
        return {name: _scalar(bound) for name, bound in value.items()}
    return _scalar(value)


Uid = Annotated[
    str,
    StringConstraints(min_length=1, max_length=limits.UID),
    AfterValidator(_plain),
    Field(examples=["B000000000"]),
]
Uids = Annotated[list[Uid], Field(max_length=limits.UIDS)]
Listed = Annotated[list[Uid], Field(max_length=limits.LISTED)]
Title = Annotated[str, StringConstraints(max_length=limits.TITLE)]
LongText = Annotated[str, StringConstraints(max_length=limits.LONG_TEXT)]
Texts = Annotated[list[LongText], Field(max_length=limits.TEXTS)]
Level = Annotated[str, StringConstraints(min_length=1, max_length=limits.LEVEL)]
Category = Annotated[list[Level], Field(max_length=limits.LEVELS)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=limits.NAME)]
Value = Annotated[Any, AfterValidator(_scalar), WithJsonSchema(SCALAR)]
Condition = Annotated[
    Any,
    AfterValidator(_condition),
    WithJsonSchema(
        {
            "anyOf": [
                *SCALAR["anyOf"],
                {"type": "array", "items": SCALAR, "minItems": 1, "maxItems": limits.VALUES},
                {
                    "type": "object",
                    "properties": {name: {"type": "number"} for name in BOUNDS},
                    "additionalProperties": False,
                    "minProperties": 1,
                },
            ]
        }
    ),
]
Weight = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]


class _Strict(BaseModel):
    """No value of another type is converted, and no unknown name is passed over."""

    model_config = ConfigDict(strict=True, extra="forbid")


class ImageData(_Strict):
    data: str = Field(description="base64 of a JPEG, PNG, WebP or other picture, or a data: URL")


Url = Annotated[
    str, StringConstraints(min_length=1, max_length=limits.URL), Field(description="http or https")
]
Images = Annotated[list[Url | ImageData], Field(max_length=limits.IMAGES)]


class Question(_Strict):
    """The best k products for the products `uids` and the new one, together."""

    uids: Uids = Field([], description="products of the catalog", examples=[["B000000000"]])
    title: Title = Field("", description="of a product that is not in the catalog")
    texts: Texts = Field([], description="its texts beside the title, such as a description")
    images: Images = Field([], description="its pictures: URLs or base64")
    category: Category = Field([], description="its category, from the widest level")
    avoid: Uids = Field([], description="products whose scores count against an answer")
    k: int = Field(10, ge=1, le=limits.K, description="number of answers")
    candidates: Listed | None = Field(None, description="only these may be answers")
    exclude: Listed = Field([], description="these may not be answers")
    where: dict[Name, Condition] | None = Field(
        None,
        max_length=limits.COLUMNS,
        description="a value, a list of values, or bounds per column",
        examples=[{"in_stock": True, "price": {"gte": 5, "lt": 20}}],
    )
    fold: bool = Field(False, description="of the variants of one product, the best alone")
    modalities: list[Literal["text", "image", "lexical"]] | None = Field(
        None, min_length=1, max_length=3, description="of the products asked about; null: all"
    )
    mix: dict[Name, Weight] | None = Field(
        None,
        max_length=limits.COLUMNS,
        description="weights of the scores in place of the model's own",
        examples=[{"beta": 0.5}],
    )
    reasons: bool = Field(False, description="which texts and pictures an answer is due to")


class Questions(_Strict):
    queries: list[Question] = Field(min_length=1, max_length=limits.QUERIES)


class ProductIn(_Strict):
    """A product as it is to be from now on."""

    title: Title = ""
    texts: Texts = Field([], description="beside the title, such as a description")
    category: Category = []
    attributes: dict[Name, Value] = Field({}, max_length=limits.COLUMNS)
    images: Images = []


class NamedProductIn(ProductIn):
    uid: Uid = Field(max_length=LONGEST_UID)


class ChangesIn(_Strict):
    upsert: list[NamedProductIn] = Field([], max_length=limits.CHANGES)
    delete: list[Uid] = Field([], max_length=limits.CHANGES)


class ModelIn(_Strict):
    folder: Annotated[
        str, StringConstraints(min_length=1, max_length=limits.FOLDER), AfterValidator(_plain)
    ] = Field(description="a folder on the server, as `dvc repro` left it")


class DescriptorOut(BaseModel):
    uid: str | None
    kind: Literal["title", "text", "words", "picture"]
    number: int
    text: str = Field("", description="the first words; only of kind text")


class ReasonOut(BaseModel):
    query: DescriptorOut
    answer: DescriptorOut
    weight: float
    by: str


class AnswerOut(BaseModel):
    uid: str
    title: str
    score: float
    parts: dict[str, float]
    fallback: bool
    why: list[ReasonOut]
    category: list[str]
    attributes: dict[str, Any]
    pictures: list[str]


class Recommendation(BaseModel):
    answers: list[AnswerOut]
    model: str
    milliseconds: float


class Error(BaseModel):
    error: str
    field: str | None


class Answers(BaseModel):
    answers: list[AnswerOut]


class Recommendations(BaseModel):
    results: list[Answers | Error]
    model: str
    milliseconds: float


class ProductOut(BaseModel):
    uid: str
    title: str
    texts: list[str]
    category: list[str]
    attributes: dict[str, Any]
    pictures: list[str]
    answerable: bool
    live: bool


class ProductsOut(BaseModel):
    products: list[ProductOut]


class ChangesOut(BaseModel):
    upserted: int
    deleted: int


class Status(BaseModel):
    status: str


M = TypeVar("M", bound=_Strict)


def validated(model: type[M], content: object) -> M:
    """The content as a model; raises Refusal (422) with a sentence of the first error."""
    if not isinstance(content, dict):
        raise Refusal(422, f"the body is {shown(content)}; it must be a JSON object")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise refused(error.errors(include_url=False)[0], model) from None


def refused(error: Any, model: type[BaseModel] | None = None) -> Refusal:
    """The Refusal of one error of pydantic."""
    field = ".".join(_written(part) for part in error["loc"] if part not in _UNIONS)
    kind, name = error["type"], _written(error["loc"][-1]) if error["loc"] else "the body"
    if kind == "missing":
        text = f"{field} is missing; give it"
    elif kind == "extra_forbidden":
        near = difflib.get_close_matches(name, list(model.model_fields) if model else [], 1)
        text = f"{shown(name)} is not a field here; " + (
            f"did you mean {near[0]}?" if near else "leave it out"
        )
    else:
        text = f"{field} is {shown(error['input'])}; {_said(error['msg'])}"
    return Refusal(422, text, field or None)


_UNIONS = {"str", "ImageData", "body"}  # parts of a location that are no names of a field


def _written(part: object) -> str:
    return str(part).encode("ascii", "backslashreplace").decode()[:100]


def _said(message: str) -> str:
    """pydantic's message as the second half of a sentence."""
    message = message.removeprefix("Value error, ").replace("Input should", "it must")
    return message[:1].lower() + message[1:]
