"""From the JSON of a request to the values that the recommender takes: pictures become bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mufin.serving.live_product import LiveProduct
from mufin.serving.query import NewProduct, Query
from mufin.serving.web.fetch import ImageFetcher
from mufin.serving.web.images import check_picture, decoded
from mufin.serving.web.limits import IMAGES, Settings
from mufin.serving.web.refusals import Refusal
from mufin.serving.web.schemas import ImageData, ProductIn, Question


class Pictures:
    """Turns images of a request, URLs or base64 or files, into checked bytes."""

    def __init__(self, settings: Settings, fetcher: ImageFetcher):
        self.settings, self.fetcher = settings, fetcher

    async def all(
        self, images: Sequence[str | ImageData], files: Sequence[bytes] = ()
    ) -> tuple[bytes, ...]:
        """The bytes in order, files last; raises Refusal of the first bad one."""
        if len(images) + len(files) > IMAGES:
            raise Refusal(422, f"there are more than {IMAGES} images; send fewer", "images")
        tasks = [
            asyncio.ensure_future(self._one(image, f"images.{number}"))
            for number, image in enumerate([*images, *files])
        ]
        try:
            return tuple([await task for task in tasks])
        finally:
            for task in tasks:
                task.cancel()
                # asyncio logs an error that nobody asked for
                task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _one(self, image: str | ImageData | bytes, field: str) -> bytes:
        most = self.settings.image_bytes
        if isinstance(image, str):
            content = await self.fetcher.fetch(image, field)
        elif isinstance(image, ImageData):
            content = await asyncio.to_thread(decoded, image.data, field, most)
        else:
            content = image
        await asyncio.to_thread(check_picture, content, field, most)
        return content


async def query_of(question: Question, pictures: Pictures, files: Sequence[bytes] = ()) -> Query:
    """The question; raises Refusal if it asks about no product, or a picture is refused."""
    described = question.title or question.texts or question.category
    if not (question.uids or described or question.images or files):
        raise Refusal(422, "no product is asked about; give uids, title or images", "uids")
    contents = await pictures.all(question.images, files) if question.images or files else ()
    new = None
    if described or contents:
        category, texts = tuple(question.category), tuple(question.texts)
        new = NewProduct(question.title, contents, category, texts)
    return Query(
        uids=tuple(question.uids),
        new=new,
        avoid=tuple(question.avoid),
        k=question.k,
        candidates=None if question.candidates is None else tuple(question.candidates),
        exclude=tuple(question.exclude),
        where=question.where,
        fold=question.fold,
        modalities=None if question.modalities is None else tuple(question.modalities),
        mix=question.mix,
        reasons=question.reasons,
    )


async def product_of(
    uid: str, given: ProductIn, pictures: Pictures, files: Sequence[bytes] = ()
) -> LiveProduct:
    """The product; raises Refusal if a picture is refused."""
    contents = await pictures.all(given.images, files) if given.images or files else ()
    category, texts = tuple(given.category), tuple(given.texts)
    return LiveProduct(uid, given.title, category, given.attributes, contents, texts)
