"""What becomes of the first picture of a few products."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

from mufin.catalog_params import Download
from mufin.catalogs.locations import File, Folders
from mufin.catalogs.product import Product
from mufin.corpus.catalog_folder import CatalogFolder
from mufin.corpus.fetch import Fetcher, Limits, is_url
from mufin.corpus.formats import format_of, refusal
from mufin.corpus.reasons import Refused
from mufin.errors import MufinError, shown

SIDE = 64  # pixels per side that a picture is decoded to
NO_PICTURE = "no picture"
MOST = 8  # images of the catalog itself that are kept


@dataclass(slots=True)
class Kept:
    """The first images that are in the catalog itself, by their references."""

    images: dict[str, bytes] = field(default_factory=dict)
    count: int = 0

    def keep(self, content: bytes) -> str:
        """A reference of the image, which is kept if it is one of the first."""
        self.count += 1
        reference = f"image {self.count} in the file"
        if self.count <= MOST:
            self.images[reference] = content
        return reference


def outcomes(
    first: list[tuple[Product, File]], kept: Kept, s: Download, local: bool, fetch: bool
) -> list[str]:
    """For each product what its first picture gives: its format and size, or why it gives none.

    URLs are fetched only with `fetch`; `local` says that paths lie beside the first file.
    """
    files = [file for _, file in first]
    root = Folders(files).root if local and files else None
    folder = CatalogFolder(root)
    out = []
    for product, file in first:
        if not product.images:
            out.append(NO_PICTURE)
            continue
        image = product.images[0]
        if is_url(image) and not fetch:
            out.append(f"{shown(image)}: not fetched (--fetch does)")
            continue
        content, reason = _content(image, file, kept, folder, s)
        out.append(f"{shown(image)}: {reason or _decoded(content)}")
    return out


def _content(
    image: str, file: File, kept: Kept, folder: CatalogFolder, s: Download
) -> tuple[bytes, str]:
    """(bytes, '') or (b'', reason)."""
    if image in kept.images:
        return kept.images[image], ""
    if is_url(image):
        try:
            return _fetcher(s).fetch(image)
        except MufinError as error:  # the network is lost
            return b"", str(error)
    if folder.root is not None:
        folder = CatalogFolder(file.path.resolve().parent)
    try:
        content = folder.read(image, s.max_bytes)
    except Refused as error:
        return b"", str(error)
    return content, ""


def _fetcher(s: Download) -> Fetcher:
    limits = Limits(
        s.timeout,
        s.max_bytes,
        min(s.retries, 1),
        s.per_host,
        s.max_redirects,
        s.private_addresses,
        s.user_agent,
    )
    return Fetcher(limits)


def _decoded(content: bytes) -> str:
    """`JPEG, 500 x 500 pixels`, or the reason why these bytes give no picture."""
    from mufin.corpus.decoding import decode_each

    if reason := refusal(content):
        return reason
    answer = decode_each([content], SIDE)[0]
    return answer if isinstance(answer, str) else _size(content)


def _size(content: bytes) -> str:
    """The format and the size of a picture that was decoded; only its head is read here."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=[format_of(content)]) as image:
            return f"{image.format}, {image.width} x {image.height} pixels"
    except Exception:  # a format that Pillow knows only in the process that decodes
        return "decoded"
