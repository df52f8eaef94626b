"""README's picture: a product and MUFIN's first five answers, drawn from data/ without a network.

The same data give the same bytes, as long as Pillow's version stays.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from mufin.artifacts.curated import read_curated
from mufin.artifacts.publication import publish
from mufin.artifacts.tables import read_ranking, read_table
from mufin.errors import MufinError
from mufin.evaluation.breakdowns import per_datapoint
from mufin.reporting.catalog import Catalog

ANSWERS = 5
SHOWN_RIGHT = 3  # right answers of the product that is chosen, where there is one
SIDE, EDGE, GAP = 168, 16, 28  # pixels: a picture, the space around it in its card, between cards
CARD_WIDTH, CARD_HEIGHT, CARD_TOP = SIDE + 2 * EDGE, SIDE + 186, 64
LINES, LINE_HEIGHT = 4, 26  # of a title
INK, SOFT, FRAME, GREEN = "#14181c", "#55606b", "#c3cad1", "#00694c"
SOFTWARE = "mufin"  # in the file: a picture of another origin is not written over
COLOURS = 128  # of the palette: a fifth of the bytes, and no difference to see


def write_showcase(home: Path, out: Path, uid: str | None = None) -> str:
    """Draw test product `uid` as PNG into `out`; returns a line that says what it shows.

    Without `uid` the first test product with title, picture and three right answers among the first
    five is chosen. Raises MufinError where there is no product to show.
    """
    data = read_curated(home / "data/curated")
    products = read_table(home / "data/curated/products.parquet", "products")
    predictions = read_ranking(home / "data/predictions/test.parquet")
    catalog = Catalog(products, data.labels, data.splits["test"], home / "data/raw/images")
    if not len(catalog.test):
        raise MufinError("the test split has no datapoints, so there is no product to show")
    truth = catalog.test.labels, catalog.test.excluded
    right = per_datapoint(predictions, *truth)[:, 1] * ANSWERS / 100  # (n,) of the first five
    row = _chosen(catalog, right) if uid is None else _row(catalog, uid)
    picture = draw(catalog, row, predictions[row, :ANSWERS], float(right.mean()))
    with publish(out) as scratch:
        picture.save(scratch, "PNG", optimize=True, pnginfo=_signed())
    product = int(catalog.test.product[row])
    return f"{out} shows {products['uid'][product].as_py()}, {catalog.title(product)}"


def is_showcase(path: Path) -> bool:
    """Whether the file is a picture that `write_showcase` wrote."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.info.get("Software") == SOFTWARE
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # no PNG, or broken
        return False


def _signed() -> PngInfo:
    info = PngInfo()
    info.add_text("Software", SOFTWARE)
    return info


def _chosen(catalog: Catalog, right: np.ndarray) -> int:
    """The datapoint whose number of right answers is nearest to SHOWN_RIGHT, the first of these."""
    titles, images = catalog.products["title"], catalog.products["images"]
    products = catalog.test.product.tolist()
    whole = [bool(titles[p].as_py() and images[p].as_py()) for p in products]
    return int((np.abs(right - SHOWN_RIGHT) + np.where(whole, 0, ANSWERS)).argmin())


def _row(catalog: Catalog, uid: str) -> int:
    """The test datapoint that is product `uid`."""
    uids = catalog.products["uid"].to_pylist()
    for row, product in enumerate(catalog.test.product.tolist()):
        if uids[product] == uid:
            return row
    raise MufinError(f"{uid} is not a product of the test split; leave it out to have one chosen")


def draw(catalog: Catalog, row: int, labels: np.ndarray, mean_right: float) -> Image.Image:
    """Test datapoint `row` beside `labels` (best first, -1 for none), those of its truth marked.

    `mean_right`: the mean number of right answers over test, which the heading names.
    """
    product = int(catalog.test.product[row])
    labels = labels[labels >= 0]
    answers = catalog.labels[labels].tolist()
    right = np.isin(labels, catalog.test.labels[row])
    catalog.load_pictures({product, *answers}, SIDE)

    start = 2 * GAP + CARD_WIDTH + GAP // 2  # of the answers
    width = start + max(len(answers), 3) * (CARD_WIDTH + GAP)
    canvas = Image.new("RGB", (width, CARD_TOP + CARD_HEIGHT + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((GAP, 22), "product asked about", INK, _font(22))
    heading = f"first {len(answers)} of {len(catalog.labels):,} labels (candidate answers)"
    count = f"{right.sum()} right here, {mean_right:.1f} on average over test"
    pen.text((start, 22), f"{heading}: {count}", INK, _font(22))
    _card(canvas, catalog, product, GAP, False)
    for place, (answer, is_right) in enumerate(zip(answers, right)):
        _card(canvas, catalog, answer, start + place * (CARD_WIDTH + GAP), bool(is_right))
    return canvas.quantize(COLOURS, dither=Image.Dither.NONE)


def _card(canvas: Image.Image, catalog: Catalog, product: int, x: int, right: bool) -> None:
    """A product's picture and title in a frame; a green frame and a tick where it is right."""
    pen = ImageDraw.Draw(canvas)
    frame = (x, CARD_TOP, x + CARD_WIDTH, CARD_TOP + CARD_HEIGHT)
    pen.rounded_rectangle(frame, 8, outline=GREEN if right else FRAME, width=4 if right else 2)
    left, top = x + EDGE, CARD_TOP + EDGE
    if pictures := catalog.pictures[product]:
        canvas.paste(Image.fromarray(pictures[0]), (left, top))
    else:
        pen.text((left, top), "(no picture)", SOFT, _font(20))
    top += SIDE + 10
    for number, line in enumerate(_wrapped(catalog.title(product), SIDE)):
        pen.text((left, top + number * LINE_HEIGHT), line, INK, _font(20))
    if right:
        _tick(pen, left, CARD_TOP + CARD_HEIGHT - 40)


def _tick(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """A tick and the word: the frame's colour alone would not tell everyone."""
    pen.line([(x, y + 11), (x + 6, y + 18), (x + 18, y + 4)], GREEN, 4, joint="curve")
    pen.text((x + 26, y - 1), "right", GREEN, _font(20))


def _wrapped(title: str, width: int) -> list[str]:
    """A title in at most LINES lines of at most `width` pixels; `...` where it is cut."""
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font(20).getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    shown = [_cut(line, width) for line in lines[:LINES]]
    if len(lines) > LINES:
        shown[-1] = _cut(f"{' '.join(lines[LINES - 1 :])}...", width)
    return shown


def _cut(line: str, width: int) -> str:
    """`line`, its end replaced by `...` where it is wider than `width` pixels."""
    if _font(20).getlength(line) <= width:
        return line
    text = line.removesuffix("...")
    while text and _font(20).getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, which is the same on every machine."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels bring FreeType
    return font
