"""The trained recommender: answers for products of the catalog, for new ones, and for baskets."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from mufin.serving.answers import Answer, Product
from mufin.serving.catalog import Catalog
from mufin.serving.given_candidates import ranked
from mufin.serving.live_product import LiveProduct
from mufin.serving.model import Model, load_model
from mufin.serving.query import NewProduct, Query, QueryError, Where
from mufin.serving.questions import Question, Questions
from mufin.serving.ranking import Ranker
from mufin.serving.reasons import has_attention

TOGETHER = 1024  # questions answered at once


class Recommender:
    """Answers questions by what `dvc repro` made in a folder.

    Not for several threads at once. Scores are mixed by `models/mix.json`, which the stage evaluate
    wrote. A product is never among the answers to a question about it.
    """

    def __init__(self, model: Model, stored: Callable[[str], bytes | None] | None = None):
        """`stored` returns a picture of a product that was added, by its key; see `Catalog`."""
        self.model = model
        self.catalog = Catalog(model, stored)
        self.questions = Questions(self.catalog)
        self.ranker = Ranker(self.catalog)

    @classmethod
    def load(cls, folder: str | Path = ".", fast: bool = False) -> Recommender:
        """The recommender in the folder of a finished `dvc repro`.

        With `fast`, new products are encoded by ONNX Runtime on a CPU, if it is installed; the
        first start exports the encoders to it, which takes seconds.

        Raises MufinError if something is missing, damaged or of another run.
        """
        return cls(load_model(Path(folder), fast))

    def recommend(
        self,
        uids: str | Sequence[str] = (),
        *,
        title: str = "",
        texts: str | Sequence[str] = (),
        images: Sequence[bytes | str | Path] = (),
        category: Sequence[str] = (),
        k: int = 10,
        avoid: Sequence[str] = (),
        candidates: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        where: Where | None = None,
        fold: bool = False,
        modalities: Sequence[str] | None = None,
        mix: Mapping[str, float] | None = None,
        reasons: bool = False,
    ) -> list[Answer]:
        """The k best products for the products `uids` and one that has `title` and `images`.

        `texts` are further ones of that product, such as a description. Several products are one
        basket: an answer's score is its mean over them. `images` are paths, or the bytes of picture
        files. The other arguments are those of `Query`. Raises
        QueryError for what cannot be asked.
        """
        new = _new_product(title, texts, images, category)
        query = Query(
            uids=(uids,) if isinstance(uids, str) else tuple(uids),
            new=new,
            avoid=tuple(avoid),
            k=k,
            candidates=None if candidates is None else tuple(candidates),
            exclude=tuple(exclude),
            where=where,
            fold=fold,
            modalities=None if modalities is None else tuple(modalities),
            mix=mix,
            reasons=reasons,
        )
        return self.recommend_batch([query])[0]

    def rank(
        self,
        candidates: Sequence[str],
        uids: str | Sequence[str] = (),
        *,
        title: str = "",
        texts: Sequence[str] = (),
        images: Sequence[bytes | str | Path] = (),
        modalities: Sequence[str] | None = None,
        mix: Mapping[str, float] | None = None,
    ) -> list[Answer]:
        """All `candidates` (uids), best first, for the products `uids` and one that is new.

        A candidate may be any product of the catalog, also one that was never a label: each is
        scored by its own vector alone (alpha = 1), and of the mix beta alone counts. Of an outfit
        without an item, `texts` and `images` are those of the given items. The other arguments are
        those of `recommend`, which in contrast ranks labels by all that training learnt of them.
        Raises QueryError for what cannot be asked.
        """
        query = Query(
            uids=(uids,) if isinstance(uids, str) else tuple(uids),
            new=_new_product(title, texts, images, ()),
            modalities=None if modalities is None else tuple(modalities),
            mix=mix,
        )
        return ranked(self.catalog, self.questions.checked(query), candidates)

    def recommend_batch(self, queries: Sequence[Query]) -> list[list[Answer]]:
        """The answers to each question; raises the QueryError of the first that has one."""
        results = self.answers(queries)
        for result in results:
            if isinstance(result, QueryError):
                raise result
        return [result for result in results if isinstance(result, list)]

    def answers(self, queries: Sequence[Query]) -> list[list[Answer] | QueryError]:
        """The answers to each question, or what is wrong with it."""
        out: list[list[Answer] | QueryError] = []
        for start in range(0, len(queries), TOGETHER):
            out += self._answers(queries[start : start + TOGETHER])
        return out

    def _answers(self, queries: Sequence[Query]) -> list[list[Answer] | QueryError]:
        results: dict[int, list[Answer] | QueryError] = {}
        questions: dict[int, Question] = {}
        for i, query in enumerate(queries):
            try:
                questions[i] = self.questions.checked(query)
            except QueryError as error:
                results[i] = error
        if questions:
            results |= zip(questions, self.ranker.answers(list(questions.values())))
        return [results[i] for i in range(len(queries))]

    def warm(self) -> None:
        """Loads what else questions need, so that the first one takes no longer than others."""
        self.recommend(title="warm", k=1)
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "png")
        with contextlib.suppress(QueryError):  # a model without an encoder of pictures
            self.recommend(images=[picture.getvalue()], k=1)

    # The catalog

    def product(self, uid: str) -> Product | None:
        """What is known of a product, None for an unknown one."""
        return self.catalog.product(uid)

    def picture(self, key: str) -> bytes | None:
        """The bytes of a picture, None for an unknown key."""
        return self.catalog.picture(key)

    def find(self, text: str, limit: int = 20) -> list[Product]:
        """Products whose title or uid contains the text, in the order of the catalog."""
        return self.catalog.find(text, limit)

    def upsert(self, products: Sequence[LiveProduct]) -> None:
        """Adds products, or changes them; they can be answers at once (alpha = 1).

        Raises QueryError for a picture that cannot be read, and then changes nothing.
        """
        self.catalog.apply(self.catalog.prepared(products))

    def refusal(self, product: LiveProduct) -> QueryError | None:
        """Why `upsert` would refuse the product, None if it would not."""
        try:
            self.catalog.check(product)
        except QueryError as error:
            return error
        return None

    def delete(self, uids: Sequence[str]) -> None:
        """Removes products from the catalog; unknown ones are passed over."""
        for uid in uids:
            self.catalog.remove(uid)

    def info(self) -> dict:
        """What the model is, for a person or a page."""
        model, catalog = self.model, self.catalog
        settings = model.params.evaluate
        return {
            "id": model.id,
            "products": len(catalog),
            "labels": int(catalog.labels.answerable().sum()),
            "live": len(catalog.live),
            "modalities": list(model.params.encoder.modalities),
            "members": len(model.predictor.networks),
            "mix": {name: value for name, value in asdict(model.mix).items()},
            "candidates": "all" if settings.candidates == "all" else settings.shortlist,
            "attention": has_attention(model.predictor.networks),
            "attributes": catalog.attributes.facts(catalog.labels.answerable()),
        }


def _new_product(
    title: str,
    texts: Sequence[str],
    images: Sequence[bytes | str | Path],
    category: Sequence[str],
) -> NewProduct | None:
    """The product with these; None if there are none."""
    if not (title or len(texts) or len(images) or len(category)):
        return None
    contents = tuple(_content(image) for image in images)
    more = (texts,) if isinstance(texts, str) else tuple(texts)
    return NewProduct(title, contents, tuple(category), more)


def _content(image: bytes | str | Path) -> bytes:
    """The bytes of a picture, from its file if it is a path."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    try:
        return Path(image).read_bytes()
    except OSError as error:
        text = f"{image} cannot be read: {error.strerror}; give another picture file"
        raise QueryError("images", text) from None
