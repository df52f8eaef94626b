"""The pictures of the sample: each kind's silhouette in its colour, with its motif on it.

Shapes are drawn by hand in a unit square and rasterised once, so the pictures need no font and no
file. A picture is then two affine transforms of the result. All random numbers come from the
generator that is passed in.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

SIDE = 80  # pixels of a picture
SHEET = 160  # pixels of the artwork that views are cut from
QUALITY = 82  # of the JPEG, out of 100
NOISE_LEVEL = 5  # largest change of a pixel value by noise, out of 255

COLOURS = (
    ("red", (205, 32, 40)),
    ("orange", (245, 130, 20)),
    ("yellow", (245, 210, 40)),
    ("green", (40, 150, 60)),
    ("teal", (20, 160, 160)),
    ("blue", (35, 75, 200)),
    ("purple", (125, 45, 165)),
    ("pink", (245, 130, 180)),
    ("brown", (120, 75, 40)),
    ("black", (45, 45, 50)),
)
# fmt: off
# A line is a group of kinds that complement one another.
KINDS = (
    "mug", "saucer", "teapot", "tin",
    "phone case", "sleeve", "mouse pad", "notebook",
    "tote", "backpack", "wallet", "umbrella",
    "t-shirt", "hoodie", "cap", "socks",
    "cushion", "blanket", "lamp", "clock",
    "poster", "candle", "plant pot", "watering can",
)
MOTIFS = (
    "anchor", "cat", "star", "leaf", "skull", "wave",
    "heart", "moon", "lightning", "fish", "tree", "flower",
)
# fmt: on

# One part of a shape: its form, whether it adds to the shape or cuts a hole in what is there, and
# numbers in a unit square: x, y of a polygon's corners, or left, top, right, bottom of an ellipse
# or of a box with round corners.
Part = tuple[str, int, tuple[float, ...]]
CUT, ADD = 0, 1


def _star() -> tuple[float, ...]:
    """The ten corners of a five-pointed star."""
    corners: list[float] = []
    for i in range(10):
        radius = 0.52 if i % 2 == 0 else 0.21
        corners.append(round(0.5 + radius * math.sin(i * math.pi / 5), 4))
        corners.append(round(0.52 - radius * math.cos(i * math.pi / 5), 4))
    return tuple(corners)


def _wave(top: float) -> tuple[float, ...]:
    """The corners of a zigzag band: its upper edge from left to right, its lower edge back."""
    across = (0, 0.17, 0.33, 0.5, 0.67, 0.83, 1)
    corners: list[float] = []
    for i, x in enumerate(across):
        corners += [x, top + 0.12 if i % 2 == 0 else top]
    for i, x in reversed(list(enumerate(across))):
        corners += [x, top + 0.28 if i % 2 == 0 else top + 0.16]
    return tuple(corners)


def _petal(i: int) -> tuple[float, ...]:
    """The box of the i-th of six round petals around the middle."""
    x, y = 0.5 + 0.3 * math.sin(i * math.pi / 3), 0.5 - 0.3 * math.cos(i * math.pi / 3)
    return tuple(round(side, 4) for side in (x - 0.2, y - 0.2, x + 0.2, y + 0.2))


# fmt: off
KIND_SHAPES: dict[str, list[Part]] = {
    "mug": [
        ("ellipse", ADD, (.60, .30, .96, .74)),
        ("ellipse", CUT, (.70, .40, .86, .64)),
        ("box", ADD, (.10, .16, .74, .88)),
    ],
    "saucer": [("ellipse", ADD, (.03, .16, .97, .84))],
    "teapot": [
        ("ellipse", ADD, (.16, .24, .80, .88)),
        ("polygon", ADD, (.72, .66, .94, .28, .99, .34, .80, .80)),
        ("ellipse", ADD, (.40, .10, .56, .26)),
        ("ellipse", ADD, (.00, .34, .30, .74)),
        ("ellipse", CUT, (.07, .42, .22, .66)),
        ("ellipse", ADD, (.20, .24, .80, .88)),
    ],
    "tin": [
        ("box", ADD, (.20, .20, .80, .95)),
        ("polygon", ADD, (.14, .08, .86, .08, .86, .22, .14, .22)),
    ],
    "phone case": [
        ("box", ADD, (.27, .03, .73, .97)),
        ("ellipse", CUT, (.32, .07, .44, .16)),
    ],
    "sleeve": [
        ("box", ADD, (.03, .20, .97, .84)),
        ("polygon", CUT, (.03, .25, .97, .25, .97, .28, .03, .28)),
    ],
    "mouse pad": [("polygon", ADD, (.02, .26, .86, .18, .98, .76, .14, .86))],
    "notebook": [
        ("box", ADD, (.18, .05, .86, .95)),
        *(("ellipse", CUT, (.14, y, .26, y + .06)) for y in (.1, .25, .4, .55, .7, .84)),
    ],
    "tote": [
        ("ellipse", ADD, (.30, .02, .70, .56)),
        ("ellipse", CUT, (.36, .08, .64, .50)),
        ("polygon", ADD, (.14, .30, .86, .30, .94, .96, .06, .96)),
    ],
    "backpack": [
        ("box", ADD, (.20, .08, .80, .96)),
        ("box", ADD, (.08, .48, .92, .92)),
        ("ellipse", ADD, (.38, .0, .62, .2)),
        ("ellipse", CUT, (.43, .03, .57, .09)),
    ],
    "wallet": [
        ("box", ADD, (.06, .28, .94, .80)),
        ("ellipse", CUT, (.84, .50, .92, .58)),
    ],
    "umbrella": [
        ("ellipse", ADD, (.02, .08, .98, 1.1)),
        ("polygon", CUT, (.0, .60, 1, .60, 1, 1.2, 0, 1.2)),
        ("polygon", ADD, (.47, .55, .53, .55, .53, .96, .47, .96)),
        ("polygon", ADD, (.53, .96, .66, .96, .66, .90, .53, .90)),
    ],
    "t-shirt": [
        ("polygon", ADD, (.30, .10, .70, .10, .98, .30, .86, .48, .76, .40, .76, .94, .24, .94,
                          .24, .40, .14, .48, .02, .30)),
        ("ellipse", CUT, (.40, .03, .60, .18)),
    ],
    "hoodie": [
        ("polygon", ADD, (.32, .16, .68, .16, .84, .28, .99, .86, .84, .90, .75, .52, .75, .96,
                          .25, .96, .25, .52, .16, .90, .01, .86, .16, .28)),
        ("ellipse", ADD, (.34, .02, .66, .30)),
        ("ellipse", CUT, (.42, .07, .58, .22)),
    ],
    "cap": [
        ("ellipse", ADD, (.12, .14, .78, .98)),
        ("polygon", CUT, (.0, .66, 1, .66, 1, 1, 0, 1)),
        ("polygon", ADD, (.10, .58, .99, .62, .96, .74, .10, .68)),
    ],
    "socks": [
        ("polygon", ADD, (.28, .04, .72, .04, .72, .56, .96, .74, .92, .94, .60, .94, .28, .66)),
    ],
    "cushion": [
        ("polygon", ADD, (.04, .04, .5, .12, .96, .04, .88, .5, .96, .96, .5, .88, .04, .96,
                          .12, .5)),
    ],
    "blanket": [
        ("polygon", ADD, (.06, .14, .94, .14, .94, .84, .06, .84)),
        *(("polygon", ADD, (x, .80, x + .05, .80, x + .05, .96, x, .96))
          for x in (.06, .18, .30, .42, .54, .66, .78, .89)),
    ],
    "lamp": [
        ("polygon", ADD, (.28, .04, .72, .04, .94, .66, .06, .66)),
        ("polygon", ADD, (.46, .6, .54, .6, .54, .9, .46, .9)),
        ("ellipse", ADD, (.26, .86, .74, .99)),
    ],
    "clock": [
        ("ellipse", ADD, (.04, .04, .96, .96)),
        ("ellipse", CUT, (.10, .10, .90, .90)),
        ("ellipse", ADD, (.14, .14, .86, .86)),
    ],
    "poster": [
        ("polygon", ADD, (.12, .02, .88, .02, .88, .98, .12, .98)),
        ("polygon", CUT, (.16, .05, .84, .05, .84, .95, .16, .95)),
        ("polygon", ADD, (.20, .08, .80, .08, .80, .92, .20, .92)),
    ],
    "candle": [
        ("box", ADD, (.22, .28, .78, .97)),
        ("polygon", ADD, (.48, .2, .52, .2, .52, .3, .48, .3)),
        ("ellipse", ADD, (.44, .03, .56, .24)),
    ],
    "plant pot": [
        ("polygon", ADD, (.08, .14, .92, .14, .92, .32, .84, .32, .74, .96, .26, .96, .16, .32,
                          .08, .32)),
    ],
    "watering can": [
        ("box", ADD, (.28, .30, .80, .94)),
        ("polygon", ADD, (.34, .80, .02, .30, .10, .24, .36, .62)),
        ("polygon", ADD, (.0, .34, .14, .18, .18, .24, .04, .40)),
        ("ellipse", ADD, (.60, .08, .98, .72)),
        ("ellipse", CUT, (.68, .16, .90, .62)),
        ("box", ADD, (.28, .30, .80, .94)),
    ],
}
# The middle (x, y) and the width of the place for the motif on each kind.
MOTIF_PLACE = {
    "mug": (.42, .52, .54), "saucer": (.5, .5, .56),
    "teapot": (.50, .56, .50), "tin": (.5, .58, .54),
    "phone case": (.5, .54, .44), "sleeve": (.5, .56, .52),
    "mouse pad": (.5, .52, .54), "notebook": (.55, .5, .54),
    "tote": (.5, .64, .54), "backpack": (.5, .56, .52),
    "wallet": (.46, .54, .46), "umbrella": (.5, .36, .46),
    "t-shirt": (.5, .56, .48), "hoodie": (.5, .62, .46),
    "cap": (.45, .42, .44), "socks": (.5, .34, .42),
    "cushion": (.5, .5, .62), "blanket": (.5, .48, .60),
    "lamp": (.5, .40, .48), "clock": (.5, .5, .56),
    "poster": (.5, .5, .56), "candle": (.5, .62, .50),
    "plant pot": (.5, .54, .48), "watering can": (.54, .62, .48),
}
MOTIF_SHAPES: dict[str, list[Part]] = {
    "anchor": [
        ("ellipse", ADD, (.38, .0, .62, .24)),
        ("ellipse", CUT, (.45, .07, .55, .17)),
        ("polygon", ADD, (.44, .2, .56, .2, .56, .9, .44, .9)),
        ("polygon", ADD, (.24, .3, .76, .3, .76, .4, .24, .4)),
        ("polygon", ADD, (.0, .56, .2, .56, .16, .66, .44, .86, .56, .86, .84, .66, .8, .56, 1, .56,
                          .96, .78, .6, 1, .4, 1, .04, .78)),
    ],
    "cat": [
        ("polygon", ADD, (.05, .0, .35, .25, .65, .25, .95, .0, .95, .65, .7, .95, .3, .95,
                          .05, .65)),
        ("ellipse", CUT, (.2, .42, .38, .6)),
        ("ellipse", CUT, (.62, .42, .8, .6)),
        ("polygon", CUT, (.42, .7, .58, .7, .5, .8)),
    ],
    "star": [("polygon", ADD, _star())],
    "leaf": [
        ("polygon", ADD, (.5, .0, .78, .22, .86, .5, .72, .76, .54, .86, .54, 1, .46, 1, .46, .86,
                          .28, .76, .14, .5, .22, .22)),
        ("polygon", CUT, (.485, .2, .515, .2, .53, .86, .47, .86)),
        ("polygon", CUT, (.5, .5, .74, .34, .76, .39, .5, .57)),
        ("polygon", CUT, (.5, .5, .26, .34, .24, .39, .5, .57)),
    ],
    "skull": [
        ("ellipse", ADD, (.06, .0, .94, .76)),
        ("box", ADD, (.26, .6, .74, 1)),
        ("ellipse", CUT, (.18, .32, .42, .58)),
        ("ellipse", CUT, (.58, .32, .82, .58)),
        ("polygon", CUT, (.5, .56, .57, .68, .43, .68)),
        ("polygon", CUT, (.38, .82, .42, .82, .42, 1, .38, 1)),
        ("polygon", CUT, (.58, .82, .62, .82, .62, 1, .58, 1)),
    ],
    "wave": [("polygon", ADD, _wave(y)) for y in (.0, .36, .72)],
    "heart": [
        ("ellipse", ADD, (.0, .06, .54, .58)),
        ("ellipse", ADD, (.46, .06, 1, .58)),
        ("polygon", ADD, (.04, .44, .96, .44, .5, 1)),
        ("polygon", ADD, (.2, .3, .8, .3, .8, .5, .2, .5)),
    ],
    "moon": [
        ("ellipse", ADD, (.04, .02, .98, .98)),
        ("ellipse", CUT, (.36, -.08, 1.2, .78)),
    ],
    "lightning": [
        ("polygon", ADD, (.62, .0, .14, .56, .46, .56, .32, 1, .86, .38, .54, .38)),
    ],
    "fish": [
        ("ellipse", ADD, (.0, .2, .76, .8)),
        ("polygon", ADD, (.62, .5, 1, .16, 1, .84)),
        ("ellipse", CUT, (.14, .38, .26, .5)),
    ],
    "tree": [
        ("polygon", ADD, (.5, .0, .82, .4, .18, .4)),
        ("polygon", ADD, (.5, .2, .92, .68, .08, .68)),
        ("polygon", ADD, (.42, .66, .58, .66, .58, 1, .42, 1)),
    ],
    "flower": [
        *(("ellipse", ADD, _petal(i)) for i in range(6)),
        ("ellipse", CUT, (.36, .36, .64, .64)),
        ("ellipse", ADD, (.44, .44, .56, .56)),
    ],
}
# fmt: on


@lru_cache(maxsize=256)
def _mask(kind_or_motif: str, side: int) -> Image.Image:
    """The shape as a (side, side) greyscale mask, 255 inside.

    It is drawn twice as large and then halved, which smooths its edges.
    """
    shapes = KIND_SHAPES.get(kind_or_motif) or MOTIF_SHAPES[kind_or_motif]
    large = Image.new("L", (2 * side, 2 * side), 0)
    draw = ImageDraw.Draw(large)
    for form, ink, numbers in shapes:
        corners = [round(2 * side * number) for number in numbers]
        if form == "polygon":
            draw.polygon(corners, fill=255 * ink)
        elif form == "ellipse":
            draw.ellipse(corners, fill=255 * ink)
        else:
            draw.rounded_rectangle(corners, radius=side // 6, fill=255 * ink)
    return large.reduce(2)


@lru_cache(maxsize=1024)
def artwork(kind: int, motif: int, colour: int) -> Image.Image:
    """The product, cut out: (160, 160) RGBA, transparent around it, with the motif on it.

    The arguments are positions in `KINDS`, `MOTIFS` and `COLOURS`.
    """
    body = np.array(COLOURS[colour][1], dtype=np.int32)
    # The left side is lit, the right side in shade: from +18 to -18 of 255.
    across_sheet = np.arange(SHEET, dtype=np.int32)[None, :, None]
    light = (across_sheet - SHEET // 2) * -36 // SHEET
    shaded = np.clip(np.broadcast_to(body, (SHEET, SHEET, 3)) + light, 0, 255).astype(np.uint8)
    sheet = Image.fromarray(shaded)
    across, down, width = MOTIF_PLACE[KINDS[kind]]
    side = round(SHEET * width)
    left, top = round(SHEET * across) - side // 2, round(SHEET * down) - side // 2
    box = (left, top, left + side, top + side)
    sheet.paste(motif_ink(colour), box, _mask(MOTIFS[motif], side))
    sheet.putalpha(_mask(KINDS[kind], SHEET))
    return sheet


def motif_ink(colour: int) -> tuple[int, int, int]:
    """The RGB colour of the motif: near-black on light colours, cream on dark ones."""
    red, green, blue = COLOURS[colour][1]
    luma = 299 * red + 587 * green + 114 * blue  # ITU-R BT.601, times 1000
    return (30, 25, 30) if luma > 128_000 else (255, 250, 235)


def draw_views(
    kind: int, motif: int, colour: int, count: int, rng: np.random.Generator
) -> list[bytes]:
    """`count` JPEGs of one product, (80, 80) RGB each.

    Even views show the whole product, odd views the motif close up. From the third view on they are
    turned, and the whole product is smaller.
    """
    sheet = artwork(int(kind), int(motif), int(colour))
    return [_jpeg(_view(sheet, int(kind), view, rng), rng) for view in range(count)]


def _view(sheet: Image.Image, kind: int, view: int, rng: np.random.Generator) -> Image.Image:
    """View number `view` of the artwork on a background, (80, 80) RGB."""
    across, down, width = MOTIF_PLACE[KINDS[kind]]
    # The middle and the width of what is seen, as parts of the sheet, and the largest turn.
    if view % 2:
        middle, span, degrees = (across, down), 1.25 * width, 4
    else:
        middle, span, degrees = (0.5, 0.5), 1.0 + rng.integers(3, 8 if view == 0 else 30) / 100, 10
    turn = 0.0 if view < 2 else math.radians(int(rng.integers(-degrees, degrees + 1)))
    shift = rng.integers(-3, 4, size=2) / 100
    # Rounded, so that the last bit of a platform's sine does not change the bytes of a picture.
    cos, sin = (round(span * f(turn) * SHEET / SIDE, 6) for f in (math.cos, math.sin))
    x, y = (SHEET * (m + s) for m, s in zip(middle, shift))
    half = SIDE / 2
    # The map from a pixel of the picture to a point of the sheet; the middle goes to (x, y).
    affine = (cos, -sin, x - half * (cos - sin), sin, cos, y - half * (sin + cos))
    seen = sheet.transform((SIDE, SIDE), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    picture = _background(rng)
    picture.paste(seen, (0, 0), seen)
    return picture


def _background(rng: np.random.Generator) -> Image.Image:
    """(80, 80) RGB: white, a light tint, or a gradient from white to a light tint."""
    choice = rng.random()
    if choice < 0.5:
        return Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    red, green, blue = (int(v) for v in rng.integers(205, 256, size=3))
    if choice < 0.75:
        return Image.new("RGB", (SIDE, SIDE), (red, green, blue))
    steps = np.linspace(0, 1, SIDE)[:, None, None]
    rows = (255 * (1 - steps) + np.array((red, green, blue)) * steps).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (SIDE, SIDE, 3))))


def _jpeg(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """The picture as JPEG, with a random brightness and a little noise."""
    pixels = np.asarray(picture, dtype=np.int16) * int(rng.integers(84, 112)) // 100
    pixels = pixels + rng.integers(-NOISE_LEVEL, NOISE_LEVEL + 1, size=pixels.shape, dtype=np.int16)
    packed = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(packed, "JPEG", quality=QUALITY)
    return packed.getvalue()
