"""Answers and products as the JSON of responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from urllib.parse import quote

from mufin.serving.answers import Answer, Product
from mufin.serving.query import QueryError
from mufin.serving.web.jobs import Products, Result
from mufin.serving.web.refusals import Refusal, error_content


def product_content(product: Product) -> dict:
    return {
        "uid": product.uid,
        "title": product.title,
        "texts": product.texts,
        "category": product.category,
        "attributes": _attributes(product),
        "pictures": _pictures(product),
        "answerable": product.answerable,
        "live": product.live,
    }


def answers_content(answers: Sequence[Answer], products: Products) -> list[dict]:
    return [_answer(answer, products.get(answer.uid)) for answer in answers]


def result_content(result: Result) -> dict:
    """One result of a batch: its answers, or its error."""
    if isinstance(result, QueryError):
        return error_content(str(result), result.field)
    if isinstance(result, Refusal):
        return error_content(result.text, result.field)
    return {"answers": answers_content(*result)}


def _answer(answer: Answer, product: Product | None) -> dict:
    return {
        "uid": answer.uid,
        "title": answer.title,
        "score": answer.score,
        "parts": answer.parts,
        "fallback": answer.fallback,
        "why": [
            {
                "query": reason.query.content(),
                "answer": reason.answer.content(),
                "weight": reason.weight,
                "by": reason.by,
            }
            for reason in answer.why
        ],
        "category": product.category if product else (),
        "attributes": _attributes(product) if product else {},
        "pictures": _pictures(product) if product else (),
    }


def _attributes(product: Product) -> dict:
    """JSON has no NaN; a catalog may."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in product.attributes.items()
    }


def _pictures(product: Product) -> list[str]:
    return [f"/v1/pictures/{quote(key, safe='')}" for key in product.pictures]
