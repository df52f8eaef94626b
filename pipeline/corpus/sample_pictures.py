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

SIDE = 80                  # pixels of a picture
SHEET = 160                # pixels of the artwork that views are cut from
QUALITY = 82               # of the JPEG
NOISE_LEVEL = 5            # greatest change of a pixel by noise, of 255

COLOURS = (
    ("red", (205, 32, 40)), ("orange", (245, 130, 20)), ("yellow", (245, 210, 40)), ("green", (40, 150, 60)),
    ("teal", (20, 160, 160)), ("blue", (35, 75, 200)), ("purple", (125, 45, 165)), ("pink", (245, 130, 180)),
    ("brown", (120, 75, 40)), ("black", (45, 45, 50)),
)
KINDS = (                  # in groups of four that complement one another
    "mug", "saucer", "teapot", "tin", "phone case", "sleeve", "mouse pad", "notebook", "tote", "backpack", "wallet",
    "umbrella", "t-shirt", "hoodie", "cap", "socks", "cushion", "blanket", "lamp", "clock", "poster", "candle",
    "plant pot", "watering can",
)
MOTIFS = ("anchor", "cat", "star", "leaf", "skull", "wave", "heart", "moon", "lightning", "fish", "tree", "flower")

# A shape is a list of (form, ink, numbers): p a polygon, e an ellipse in a box, r a rounded box; ink 1 adds, 0 cuts.
KIND_SHAPES = {
    "mug": [("e", 1, (.60, .30, .96, .74)), ("e", 0, (.70, .40, .86, .64)), ("r", 1, (.10, .16, .74, .88))],
    "saucer": [("e", 1, (.03, .16, .97, .84))],
    "teapot": [("e", 1, (.16, .24, .80, .88)), ("p", 1, (.72, .66, .94, .28, .99, .34, .80, .80)),
               ("e", 1, (.40, .10, .56, .26)), ("e", 1, (.00, .34, .30, .74)), ("e", 0, (.07, .42, .22, .66)),
               ("e", 1, (.20, .24, .80, .88))],
    "tin": [("r", 1, (.20, .20, .80, .95)), ("p", 1, (.14, .08, .86, .08, .86, .22, .14, .22))],
    "phone case": [("r", 1, (.27, .03, .73, .97)), ("e", 0, (.32, .07, .44, .16))],
    "sleeve": [("r", 1, (.03, .20, .97, .84)), ("p", 0, (.03, .25, .97, .25, .97, .28, .03, .28))],
    "mouse pad": [("p", 1, (.02, .26, .86, .18, .98, .76, .14, .86))],
    "notebook": [("r", 1, (.18, .05, .86, .95))]
                + [("e", 0, (.14, y, .26, y + .06)) for y in (.1, .25, .4, .55, .7, .84)],
    "tote": [("e", 1, (.30, .02, .70, .56)), ("e", 0, (.36, .08, .64, .50)),
             ("p", 1, (.14, .30, .86, .30, .94, .96, .06, .96))],
    "backpack": [("r", 1, (.20, .08, .80, .96)), ("r", 1, (.08, .48, .92, .92)), ("e", 1, (.38, .0, .62, .2)),
                 ("e", 0, (.43, .03, .57, .09))],
    "wallet": [("r", 1, (.06, .28, .94, .80)), ("e", 0, (.84, .50, .92, .58))],
    "umbrella": [("e", 1, (.02, .08, .98, 1.1)), ("p", 0, (.0, .60, 1, .60, 1, 1.2, 0, 1.2)),
                 ("p", 1, (.47, .55, .53, .55, .53, .96, .47, .96)),
                 ("p", 1, (.53, .96, .66, .96, .66, .90, .53, .90))],
    "t-shirt": [("p", 1, (.30, .10, .70, .10, .98, .30, .86, .48, .76, .40, .76, .94, .24, .94, .24, .40, .14, .48,
                          .02, .30)),
                ("e", 0, (.40, .03, .60, .18))],
    "hoodie": [("p", 1, (.32, .16, .68, .16, .84, .28, .99, .86, .84, .90, .75, .52, .75, .96, .25, .96, .25, .52,
                         .16, .90, .01, .86, .16, .28)),
               ("e", 1, (.34, .02, .66, .30)), ("e", 0, (.42, .07, .58, .22))],
    "cap": [("e", 1, (.12, .14, .78, .98)), ("p", 0, (.0, .66, 1, .66, 1, 1, 0, 1)),
            ("p", 1, (.10, .58, .99, .62, .96, .74, .10, .68))],
    "socks": [("p", 1, (.28, .04, .72, .04, .72, .56, .96, .74, .92, .94, .60, .94, .28, .66))],
    "cushion": [("p", 1, (.04, .04, .5, .12, .96, .04, .88, .5, .96, .96, .5, .88, .04, .96, .12, .5))],
    "blanket": [("p", 1, (.06, .14, .94, .14, .94, .84, .06, .84))]
               + [("p", 1, (x, .80, x + .05, .80, x + .05, .96, x, .96))
                  for x in (.06, .18, .30, .42, .54, .66, .78, .89)],
    "lamp": [("p", 1, (.28, .04, .72, .04, .94, .66, .06, .66)), ("p", 1, (.46, .6, .54, .6, .54, .9, .46, .9)),
             ("e", 1, (.26, .86, .74, .99))],
    "clock": [("e", 1, (.04, .04, .96, .96)), ("e", 0, (.10, .10, .90, .90)), ("e", 1, (.14, .14, .86, .86))],
    "poster": [("p", 1, (.12, .02, .88, .02, .88, .98, .12, .98)), ("p", 0, (.16, .05, .84, .05, .84, .95, .16, .95)),
               ("p", 1, (.20, .08, .80, .08, .80, .92, .20, .92))],
    "candle": [("r", 1, (.22, .28, .78, .97)), ("p", 1, (.48, .2, .52, .2, .52, .3, .48, .3)),
               ("e", 1, (.44, .03, .56, .24))],
    "plant pot": [("p", 1, (.08, .14, .92, .14, .92, .32, .84, .32, .74, .96, .26, .96, .16, .32, .08, .32))],
    "watering can": [("r", 1, (.28, .30, .80, .94)), ("p", 1, (.34, .80, .02, .30, .10, .24, .36, .62)),
                     ("p", 1, (.0, .34, .14, .18, .18, .24, .04, .40)), ("e", 1, (.60, .08, .98, .72)),
                     ("e", 0, (.68, .16, .90, .62)), ("r", 1, (.28, .30, .80, .94))],
}
# Middle and width of the place where the motif stands on each kind.
MOTIF_PLACE = {
    "mug": (.42, .52, .54), "saucer": (.5, .5, .56), "teapot": (.50, .56, .50), "tin": (.5, .58, .54),
    "phone case": (.5, .54, .44), "sleeve": (.5, .56, .52), "mouse pad": (.5, .52, .54), "notebook": (.55, .5, .54),
    "tote": (.5, .64, .54), "backpack": (.5, .56, .52), "wallet": (.46, .54, .46), "umbrella": (.5, .36, .46),
    "t-shirt": (.5, .56, .48), "hoodie": (.5, .62, .46), "cap": (.45, .42, .44), "socks": (.5, .34, .42),
    "cushion": (.5, .5, .62), "blanket": (.5, .48, .60), "lamp": (.5, .40, .48), "clock": (.5, .5, .56),
    "poster": (.5, .5, .56), "candle": (.5, .62, .50), "plant pot": (.5, .54, .48), "watering can": (.54, .62, .48),
}
MOTIF_SHAPES = {
    "anchor": [("e", 1, (.38, .0, .62, .24)), ("e", 0, (.45, .07, .55, .17)),
               ("p", 1, (.44, .2, .56, .2, .56, .9, .44, .9)),
               ("p", 1, (.24, .3, .76, .3, .76, .4, .24, .4)),
               ("p", 1, (.0, .56, .2, .56, .16, .66, .44, .86, .56, .86, .84, .66, .8, .56, 1, .56, .96, .78, .6, 1,
                         .4, 1, .04, .78))],
    "cat": [("p", 1, (.05, .0, .35, .25, .65, .25, .95, .0, .95, .65, .7, .95, .3, .95, .05, .65)),
            ("e", 0, (.2, .42, .38, .6)), ("e", 0, (.62, .42, .8, .6)), ("p", 0, (.42, .7, .58, .7, .5, .8))],
    "star": [("p", 1, tuple(v for i in range(10) for v in (
        round(.5 + (.52 if i % 2 == 0 else .21) * math.sin(i * math.pi / 5), 4),
        round(.52 - (.52 if i % 2 == 0 else .21) * math.cos(i * math.pi / 5), 4))))],
    "leaf": [("p", 1, (.5, .0, .78, .22, .86, .5, .72, .76, .54, .86, .54, 1, .46, 1, .46, .86, .28, .76, .14, .5,
                       .22, .22)),
             ("p", 0, (.485, .2, .515, .2, .53, .86, .47, .86)), ("p", 0, (.5, .5, .74, .34, .76, .39, .5, .57)),
             ("p", 0, (.5, .5, .26, .34, .24, .39, .5, .57))],
    "skull": [("e", 1, (.06, .0, .94, .76)), ("r", 1, (.26, .6, .74, 1)), ("e", 0, (.18, .32, .42, .58)),
              ("e", 0, (.58, .32, .82, .58)), ("p", 0, (.5, .56, .57, .68, .43, .68)),
              ("p", 0, (.38, .82, .42, .82, .42, 1, .38, 1)), ("p", 0, (.58, .82, .62, .82, .62, 1, .58, 1))],
    "wave": [("p", 1, (0, y + .12, .17, y, .33, y + .12, .5, y, .67, y + .12, .83, y, 1, y + .12, 1, y + .28, .83,
                       y + .16, .67, y + .28, .5, y + .16, .33, y + .28, .17, y + .16, 0, y + .28))
             for y in (.0, .36, .72)],
    "heart": [("e", 1, (.0, .06, .54, .58)), ("e", 1, (.46, .06, 1, .58)), ("p", 1, (.04, .44, .96, .44, .5, 1)),
              ("p", 1, (.2, .3, .8, .3, .8, .5, .2, .5))],
    "moon": [("e", 1, (.04, .02, .98, .98)), ("e", 0, (.36, -.08, 1.2, .78))],
    "lightning": [("p", 1, (.62, .0, .14, .56, .46, .56, .32, 1, .86, .38, .54, .38))],
    "fish": [("e", 1, (.0, .2, .76, .8)), ("p", 1, (.62, .5, 1, .16, 1, .84)), ("e", 0, (.14, .38, .26, .5))],
    "tree": [("p", 1, (.5, .0, .82, .4, .18, .4)), ("p", 1, (.5, .2, .92, .68, .08, .68)),
             ("p", 1, (.42, .66, .58, .66, .58, 1, .42, 1))],
    "flower": [("e", 1, (round(.5 + .3 * math.sin(i * math.pi / 3) - .2, 4),
                         round(.5 - .3 * math.cos(i * math.pi / 3) - .2, 4),
                         round(.5 + .3 * math.sin(i * math.pi / 3) + .2, 4),
                         round(.5 - .3 * math.cos(i * math.pi / 3) + .2, 4)))
               for i in range(6)] + [("e", 0, (.36, .36, .64, .64)), ("e", 1, (.44, .44, .56, .56))],
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
    light = (np.arange(SHEET, dtype=np.int32)[None, :, None] - SHEET // 2) * -36 // SHEET   # left lit, right in shade
    shaded = np.clip(np.broadcast_to(body, (SHEET, SHEET, 3)) + light, 0, 255).astype(np.uint8)
    sheet = Image.fromarray(shaded)
    across, down, width = MOTIF_PLACE[KINDS[kind]]
    side = round(SHEET * width)
    corner = (round(SHEET * across) - side // 2, round(SHEET * down) - side // 2)
    sheet.paste(motif_ink(colour), (*corner, corner[0] + side, corner[1] + side), _mask(MOTIFS[motif], side))
    sheet.putalpha(_mask(KINDS[kind], SHEET))
    return sheet


def motif_ink(colour: int) -> tuple[int, int, int]:
    """Near-black on light colours, cream on dark ones."""
    red, green, blue = COLOURS[colour][1]
    return (30, 25, 30) if 299 * red + 587 * green + 114 * blue > 128_000 else (255, 250, 235)


def draw_views(kind: int, motif: int, colour: int, count: int, rng: np.random.Generator) -> list[bytes]:
    """`count` JPEGs of a product: by turns the whole and the motif close up; from the third on turned and smaller."""
    sheet = artwork(int(kind), int(motif), int(colour))
    return [_jpeg(_view(sheet, int(kind), view, rng), rng) for view in range(count)]


def _view(sheet: Image.Image, kind: int, view: int, rng: np.random.Generator) -> Image.Image:
    """The artwork as the camera sees it, (80, 80) RGB on a background."""
    across, down, width = MOTIF_PLACE[KINDS[kind]]
    if view % 2:                                                         # the motif close up
        middle, span, widest = (across, down), 1.25 * width, 4
    else:
        middle, span, widest = (0.5, 0.5), 1.0 + rng.integers(3, 8 if view == 0 else 30) / 100, 10
    turn = 0.0 if view < 2 else math.radians(int(rng.integers(-widest, widest + 1)))
    shift = rng.integers(-3, 4, size=2) / 100
    cos, sin = (round(span * f(turn) * SHEET / SIDE, 6) for f in (math.cos, math.sin))
    x, y = (SHEET * (m + s) for m, s in zip(middle, shift))
    half = SIDE / 2
    seen = sheet.transform(
        (SIDE, SIDE), Image.Transform.AFFINE,
        (cos, -sin, x - half * (cos - sin), sin, cos, y - half * (sin + cos)), Image.Resampling.BILINEAR)
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
