"""The pictures of the sample: a kind's silhouette in its colour with its motif on it, in several views.

Shapes are drawn by hand in a unit square and rasterised once, so no font and no file is needed; a picture is then two
affine pastes. All numbers come from the generator that is passed in.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

SIDE = 80  # pixels of a picture
SHEET = 160  # pixels of the artwork that views are cut from
QUALITY = 82  # of the JPEG
NOISE_LEVEL = 5  # greatest change of a pixel by noise, of 255

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
KINDS = (  # in groups of four that complement one another
    "mug",
    "saucer",
    "teapot",
    "tin",
    "phone case",
    "sleeve",
    "mouse pad",
    "notebook",
    "tote",
    "backpack",
    "wallet",
    "umbrella",
    "t-shirt",
    "hoodie",
    "cap",
    "socks",
    "cushion",
    "blanket",
    "lamp",
    "clock",
    "poster",
    "candle",
    "plant pot",
    "watering can",
)
MOTIFS = (
    "anchor",
    "cat",
    "star",
    "leaf",
    "skull",
    "wave",
    "heart",
    "moon",
    "lightning",
    "fish",
    "tree",
    "flower",
)

# A shape is a list of (form, ink, numbers): p a polygon, e an ellipse in a box, r a rounded box; ink 1 adds, 0 cuts.
KIND_SHAPES = {
    "mug": [
        ("e", 1, (0.60, 0.30, 0.96, 0.74)),
        ("e", 0, (0.70, 0.40, 0.86, 0.64)),
        ("r", 1, (0.10, 0.16, 0.74, 0.88)),
    ],
    "saucer": [("e", 1, (0.03, 0.16, 0.97, 0.84))],
    "teapot": [
        ("e", 1, (0.16, 0.24, 0.80, 0.88)),
        ("p", 1, (0.72, 0.66, 0.94, 0.28, 0.99, 0.34, 0.80, 0.80)),
        ("e", 1, (0.40, 0.10, 0.56, 0.26)),
        ("e", 1, (0.00, 0.34, 0.30, 0.74)),
        ("e", 0, (0.07, 0.42, 0.22, 0.66)),
        ("e", 1, (0.20, 0.24, 0.80, 0.88)),
    ],
    "tin": [
        ("r", 1, (0.20, 0.20, 0.80, 0.95)),
        ("p", 1, (0.14, 0.08, 0.86, 0.08, 0.86, 0.22, 0.14, 0.22)),
    ],
    "phone case": [("r", 1, (0.27, 0.03, 0.73, 0.97)), ("e", 0, (0.32, 0.07, 0.44, 0.16))],
    "sleeve": [
        ("r", 1, (0.03, 0.20, 0.97, 0.84)),
        ("p", 0, (0.03, 0.25, 0.97, 0.25, 0.97, 0.28, 0.03, 0.28)),
    ],
    "mouse pad": [("p", 1, (0.02, 0.26, 0.86, 0.18, 0.98, 0.76, 0.14, 0.86))],
    "notebook": [("r", 1, (0.18, 0.05, 0.86, 0.95))]
    + [("e", 0, (0.14, y, 0.26, y + 0.06)) for y in (0.1, 0.25, 0.4, 0.55, 0.7, 0.84)],
    "tote": [
        ("e", 1, (0.30, 0.02, 0.70, 0.56)),
        ("e", 0, (0.36, 0.08, 0.64, 0.50)),
        ("p", 1, (0.14, 0.30, 0.86, 0.30, 0.94, 0.96, 0.06, 0.96)),
    ],
    "backpack": [
        ("r", 1, (0.20, 0.08, 0.80, 0.96)),
        ("r", 1, (0.08, 0.48, 0.92, 0.92)),
        ("e", 1, (0.38, 0.0, 0.62, 0.2)),
        ("e", 0, (0.43, 0.03, 0.57, 0.09)),
    ],
    "wallet": [("r", 1, (0.06, 0.28, 0.94, 0.80)), ("e", 0, (0.84, 0.50, 0.92, 0.58))],
    "umbrella": [
        ("e", 1, (0.02, 0.08, 0.98, 1.1)),
        ("p", 0, (0.0, 0.60, 1, 0.60, 1, 1.2, 0, 1.2)),
        ("p", 1, (0.47, 0.55, 0.53, 0.55, 0.53, 0.96, 0.47, 0.96)),
        ("p", 1, (0.53, 0.96, 0.66, 0.96, 0.66, 0.90, 0.53, 0.90)),
    ],
    "t-shirt": [
        (
            "p",
            1,
            (
                0.30,
                0.10,
                0.70,
                0.10,
                0.98,
                0.30,
                0.86,
                0.48,
                0.76,
                0.40,
                0.76,
                0.94,
                0.24,
                0.94,
                0.24,
                0.40,
                0.14,
                0.48,
                0.02,
                0.30,
            ),
        ),
        ("e", 0, (0.40, 0.03, 0.60, 0.18)),
    ],
    "hoodie": [
        (
            "p",
            1,
            (
                0.32,
                0.16,
                0.68,
                0.16,
                0.84,
                0.28,
                0.99,
                0.86,
                0.84,
                0.90,
                0.75,
                0.52,
                0.75,
                0.96,
                0.25,
                0.96,
                0.25,
                0.52,
                0.16,
                0.90,
                0.01,
                0.86,
                0.16,
                0.28,
            ),
        ),
        ("e", 1, (0.34, 0.02, 0.66, 0.30)),
        ("e", 0, (0.42, 0.07, 0.58, 0.22)),
    ],
    "cap": [
        ("e", 1, (0.12, 0.14, 0.78, 0.98)),
        ("p", 0, (0.0, 0.66, 1, 0.66, 1, 1, 0, 1)),
        ("p", 1, (0.10, 0.58, 0.99, 0.62, 0.96, 0.74, 0.10, 0.68)),
    ],
    "socks": [
        (
            "p",
            1,
            (0.28, 0.04, 0.72, 0.04, 0.72, 0.56, 0.96, 0.74, 0.92, 0.94, 0.60, 0.94, 0.28, 0.66),
        )
    ],
    "cushion": [
        (
            "p",
            1,
            (
                0.04,
                0.04,
                0.5,
                0.12,
                0.96,
                0.04,
                0.88,
                0.5,
                0.96,
                0.96,
                0.5,
                0.88,
                0.04,
                0.96,
                0.12,
                0.5,
            ),
        )
    ],
    "blanket": [("p", 1, (0.06, 0.14, 0.94, 0.14, 0.94, 0.84, 0.06, 0.84))]
    + [
        ("p", 1, (x, 0.80, x + 0.05, 0.80, x + 0.05, 0.96, x, 0.96))
        for x in (0.06, 0.18, 0.30, 0.42, 0.54, 0.66, 0.78, 0.89)
    ],
    "lamp": [
        ("p", 1, (0.28, 0.04, 0.72, 0.04, 0.94, 0.66, 0.06, 0.66)),
        ("p", 1, (0.46, 0.6, 0.54, 0.6, 0.54, 0.9, 0.46, 0.9)),
        ("e", 1, (0.26, 0.86, 0.74, 0.99)),
    ],
    "clock": [
        ("e", 1, (0.04, 0.04, 0.96, 0.96)),
        ("e", 0, (0.10, 0.10, 0.90, 0.90)),
        ("e", 1, (0.14, 0.14, 0.86, 0.86)),
    ],
    "poster": [
        ("p", 1, (0.12, 0.02, 0.88, 0.02, 0.88, 0.98, 0.12, 0.98)),
        ("p", 0, (0.16, 0.05, 0.84, 0.05, 0.84, 0.95, 0.16, 0.95)),
        ("p", 1, (0.20, 0.08, 0.80, 0.08, 0.80, 0.92, 0.20, 0.92)),
    ],
    "candle": [
        ("r", 1, (0.22, 0.28, 0.78, 0.97)),
        ("p", 1, (0.48, 0.2, 0.52, 0.2, 0.52, 0.3, 0.48, 0.3)),
        ("e", 1, (0.44, 0.03, 0.56, 0.24)),
    ],
    "plant pot": [
        (
            "p",
            1,
            (
                0.08,
                0.14,
                0.92,
                0.14,
                0.92,
                0.32,
                0.84,
                0.32,
                0.74,
                0.96,
                0.26,
                0.96,
                0.16,
                0.32,
                0.08,
                0.32,
            ),
        )
    ],
    "watering can": [
        ("r", 1, (0.28, 0.30, 0.80, 0.94)),
        ("p", 1, (0.34, 0.80, 0.02, 0.30, 0.10, 0.24, 0.36, 0.62)),
        ("p", 1, (0.0, 0.34, 0.14, 0.18, 0.18, 0.24, 0.04, 0.40)),
        ("e", 1, (0.60, 0.08, 0.98, 0.72)),
        ("e", 0, (0.68, 0.16, 0.90, 0.62)),
        ("r", 1, (0.28, 0.30, 0.80, 0.94)),
    ],
}
# Middle and width of the place where the motif stands on each kind.
MOTIF_PLACE = {
    "mug": (0.42, 0.52, 0.54),
    "saucer": (0.5, 0.5, 0.56),
    "teapot": (0.50, 0.56, 0.50),
    "tin": (0.5, 0.58, 0.54),
    "phone case": (0.5, 0.54, 0.44),
    "sleeve": (0.5, 0.56, 0.52),
    "mouse pad": (0.5, 0.52, 0.54),
    "notebook": (0.55, 0.5, 0.54),
    "tote": (0.5, 0.64, 0.54),
    "backpack": (0.5, 0.56, 0.52),
    "wallet": (0.46, 0.54, 0.46),
    "umbrella": (0.5, 0.36, 0.46),
    "t-shirt": (0.5, 0.56, 0.48),
    "hoodie": (0.5, 0.62, 0.46),
    "cap": (0.45, 0.42, 0.44),
    "socks": (0.5, 0.34, 0.42),
    "cushion": (0.5, 0.5, 0.62),
    "blanket": (0.5, 0.48, 0.60),
    "lamp": (0.5, 0.40, 0.48),
    "clock": (0.5, 0.5, 0.56),
    "poster": (0.5, 0.5, 0.56),
    "candle": (0.5, 0.62, 0.50),
    "plant pot": (0.5, 0.54, 0.48),
    "watering can": (0.54, 0.62, 0.48),
}
MOTIF_SHAPES = {
    "anchor": [
        ("e", 1, (0.38, 0.0, 0.62, 0.24)),
        ("e", 0, (0.45, 0.07, 0.55, 0.17)),
        ("p", 1, (0.44, 0.2, 0.56, 0.2, 0.56, 0.9, 0.44, 0.9)),
        ("p", 1, (0.24, 0.3, 0.76, 0.3, 0.76, 0.4, 0.24, 0.4)),
        (
            "p",
            1,
            (
                0.0,
                0.56,
                0.2,
                0.56,
                0.16,
                0.66,
                0.44,
                0.86,
                0.56,
                0.86,
                0.84,
                0.66,
                0.8,
                0.56,
                1,
                0.56,
                0.96,
                0.78,
                0.6,
                1,
                0.4,
                1,
                0.04,
                0.78,
            ),
        ),
    ],
    "cat": [
        (
            "p",
            1,
            (
                0.05,
                0.0,
                0.35,
                0.25,
                0.65,
                0.25,
                0.95,
                0.0,
                0.95,
                0.65,
                0.7,
                0.95,
                0.3,
                0.95,
                0.05,
                0.65,
            ),
        ),
        ("e", 0, (0.2, 0.42, 0.38, 0.6)),
        ("e", 0, (0.62, 0.42, 0.8, 0.6)),
        ("p", 0, (0.42, 0.7, 0.58, 0.7, 0.5, 0.8)),
    ],
    "star": [
        (
            "p",
            1,
            tuple(
                v
                for i in range(10)
                for v in (
                    round(0.5 + (0.52 if i % 2 == 0 else 0.21) * math.sin(i * math.pi / 5), 4),
                    round(0.52 - (0.52 if i % 2 == 0 else 0.21) * math.cos(i * math.pi / 5), 4),
                )
            ),
        )
    ],
    "leaf": [
        (
            "p",
            1,
            (
                0.5,
                0.0,
                0.78,
                0.22,
                0.86,
                0.5,
                0.72,
                0.76,
                0.54,
                0.86,
                0.54,
                1,
                0.46,
                1,
                0.46,
                0.86,
                0.28,
                0.76,
                0.14,
                0.5,
                0.22,
                0.22,
            ),
        ),
        ("p", 0, (0.485, 0.2, 0.515, 0.2, 0.53, 0.86, 0.47, 0.86)),
        ("p", 0, (0.5, 0.5, 0.74, 0.34, 0.76, 0.39, 0.5, 0.57)),
        ("p", 0, (0.5, 0.5, 0.26, 0.34, 0.24, 0.39, 0.5, 0.57)),
    ],
    "skull": [
        ("e", 1, (0.06, 0.0, 0.94, 0.76)),
        ("r", 1, (0.26, 0.6, 0.74, 1)),
        ("e", 0, (0.18, 0.32, 0.42, 0.58)),
        ("e", 0, (0.58, 0.32, 0.82, 0.58)),
        ("p", 0, (0.5, 0.56, 0.57, 0.68, 0.43, 0.68)),
        ("p", 0, (0.38, 0.82, 0.42, 0.82, 0.42, 1, 0.38, 1)),
        ("p", 0, (0.58, 0.82, 0.62, 0.82, 0.62, 1, 0.58, 1)),
    ],
    "wave": [
        (
            "p",
            1,
            (
                0,
                y + 0.12,
                0.17,
                y,
                0.33,
                y + 0.12,
                0.5,
                y,
                0.67,
                y + 0.12,
                0.83,
                y,
                1,
                y + 0.12,
                1,
                y + 0.28,
                0.83,
                y + 0.16,
                0.67,
                y + 0.28,
                0.5,
                y + 0.16,
                0.33,
                y + 0.28,
                0.17,
                y + 0.16,
                0,
                y + 0.28,
            ),
        )
        for y in (0.0, 0.36, 0.72)
    ],
    "heart": [
        ("e", 1, (0.0, 0.06, 0.54, 0.58)),
        ("e", 1, (0.46, 0.06, 1, 0.58)),
        ("p", 1, (0.04, 0.44, 0.96, 0.44, 0.5, 1)),
        ("p", 1, (0.2, 0.3, 0.8, 0.3, 0.8, 0.5, 0.2, 0.5)),
    ],
    "moon": [("e", 1, (0.04, 0.02, 0.98, 0.98)), ("e", 0, (0.36, -0.08, 1.2, 0.78))],
    "lightning": [("p", 1, (0.62, 0.0, 0.14, 0.56, 0.46, 0.56, 0.32, 1, 0.86, 0.38, 0.54, 0.38))],
    "fish": [
        ("e", 1, (0.0, 0.2, 0.76, 0.8)),
        ("p", 1, (0.62, 0.5, 1, 0.16, 1, 0.84)),
        ("e", 0, (0.14, 0.38, 0.26, 0.5)),
    ],
    "tree": [
        ("p", 1, (0.5, 0.0, 0.82, 0.4, 0.18, 0.4)),
        ("p", 1, (0.5, 0.2, 0.92, 0.68, 0.08, 0.68)),
        ("p", 1, (0.42, 0.66, 0.58, 0.66, 0.58, 1, 0.42, 1)),
    ],
    "flower": [
        (
            "e",
            1,
            (
                round(0.5 + 0.3 * math.sin(i * math.pi / 3) - 0.2, 4),
                round(0.5 - 0.3 * math.cos(i * math.pi / 3) - 0.2, 4),
                round(0.5 + 0.3 * math.sin(i * math.pi / 3) + 0.2, 4),
                round(0.5 - 0.3 * math.cos(i * math.pi / 3) + 0.2, 4),
            ),
        )
        for i in range(6)
    ]
    + [("e", 0, (0.36, 0.36, 0.64, 0.64)), ("e", 1, (0.44, 0.44, 0.56, 0.56))],
}


@lru_cache(maxsize=256)
def _mask(kind_or_motif: str, side: int) -> Image.Image:
    """The shape as a (side, side) greyscale mask, drawn twice as large and halved for smooth edges."""
    shapes = KIND_SHAPES.get(kind_or_motif) or MOTIF_SHAPES[kind_or_motif]
    large = Image.new("L", (2 * side, 2 * side), 0)
    draw = ImageDraw.Draw(large)
    for form, ink, numbers in shapes:
        corners = [round(2 * side * number) for number in numbers]
        if form == "p":
            draw.polygon(corners, fill=255 * ink)
        elif form == "e":
            draw.ellipse(corners, fill=255 * ink)
        else:
            draw.rounded_rectangle(corners, radius=side // 6, fill=255 * ink)
    return large.reduce(2)


@lru_cache(maxsize=1024)
def artwork(kind: int, motif: int, colour: int) -> Image.Image:
    """The product cut out: (160, 160) RGBA, its colour with a lit side, the motif in cream or near-black on it."""
    body = np.array(COLOURS[colour][1], dtype=np.int32)
    light = (
        (np.arange(SHEET, dtype=np.int32)[None, :, None] - SHEET // 2) * -36 // SHEET
    )  # left lit, right in shade
    shaded = np.clip(np.broadcast_to(body, (SHEET, SHEET, 3)) + light, 0, 255).astype(np.uint8)
    sheet = Image.fromarray(shaded)
    across, down, width = MOTIF_PLACE[KINDS[kind]]
    side = round(SHEET * width)
    corner = (round(SHEET * across) - side // 2, round(SHEET * down) - side // 2)
    sheet.paste(
        motif_ink(colour), (*corner, corner[0] + side, corner[1] + side), _mask(MOTIFS[motif], side)
    )
    sheet.putalpha(_mask(KINDS[kind], SHEET))
    return sheet


def motif_ink(colour: int) -> tuple[int, int, int]:
    """Near-black on light colours, cream on dark ones."""
    red, green, blue = COLOURS[colour][1]
    return (30, 25, 30) if 299 * red + 587 * green + 114 * blue > 128_000 else (255, 250, 235)


def draw_views(
    kind: int, motif: int, colour: int, count: int, rng: np.random.Generator
) -> list[bytes]:
    """`count` JPEGs of a product: by turns the whole and the motif close up; from the third on turned and smaller."""
    sheet = artwork(int(kind), int(motif), int(colour))
    return [_jpeg(_view(sheet, int(kind), view, rng), rng) for view in range(count)]


def _view(sheet: Image.Image, kind: int, view: int, rng: np.random.Generator) -> Image.Image:
    """The artwork as the camera sees it, (80, 80) RGB on a background."""
    across, down, width = MOTIF_PLACE[KINDS[kind]]
    if view % 2:  # the motif close up
        middle, span, widest = (across, down), 1.25 * width, 4
    else:
        middle, span, widest = (0.5, 0.5), 1.0 + rng.integers(3, 8 if view == 0 else 30) / 100, 10
    turn = 0.0 if view < 2 else math.radians(int(rng.integers(-widest, widest + 1)))
    shift = rng.integers(-3, 4, size=2) / 100
    cos, sin = (round(span * f(turn) * SHEET / SIDE, 6) for f in (math.cos, math.sin))
    x, y = (SHEET * (m + s) for m, s in zip(middle, shift))
    half = SIDE / 2
    seen = sheet.transform(
        (SIDE, SIDE),
        Image.Transform.AFFINE,
        (cos, -sin, x - half * (cos - sin), sin, cos, y - half * (sin + cos)),
        Image.Resampling.BILINEAR,
    )
    picture = _background(rng)
    picture.paste(seen, (0, 0), seen)
    return picture


def _background(rng: np.random.Generator) -> Image.Image:
    """White, a light tint, or a light gradient: (80, 80) RGB."""
    choice = rng.random()
    if choice < 0.5:
        return Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    tint = tuple(int(v) for v in rng.integers(205, 256, size=3))
    if choice < 0.75:
        return Image.new("RGB", (SIDE, SIDE), tint)
    steps = np.linspace(0, 1, SIDE)[:, None, None]
    rows = (255 * (1 - steps) + np.array(tint) * steps).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (SIDE, SIDE, 3))))


def _jpeg(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """The picture under some light and with a little noise, as JPEG."""
    pixels = np.asarray(picture, dtype=np.int16) * int(rng.integers(84, 112)) // 100
    pixels = pixels + rng.integers(-NOISE_LEVEL, NOISE_LEVEL + 1, size=pixels.shape, dtype=np.int16)
    packed = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(packed, "JPEG", quality=QUALITY)
    return packed.getvalue()
