"""The built-in sample: a seeded, invented catalog whose relations need the title and the picture.

A product has a kind (mug, saucer, ...), a motif and a colour, which its pictures show, and a brand, a house (the maker
that owns the brand and its model series) and a size, which only its title tells. p's relations are drawn without
replacement with odds

    COMPLEMENT[kind_p, kind_l] x MOTIF_LIFT^[motif_p = wanted_motif_l] x HOUSE_LIFT^[house_p = wanted_house_l]
        x colour and size lifts x popularity_l

so a label must complement p's kind *and* suit its motif (picture) *and* its house (title). Popularity (Zipf) and
`wanted` (mostly the label's own motif and house, else a whim of its buyers) are in no title and no picture: they are
what a label's free vector can learn and its content cannot tell. The strengths are the constants below.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mufin.corpus.sample_pictures import COLOURS, KINDS, MOTIFS, draw_views
from mufin.errors import MufinError

# Strengths of the relations.
MOTIF_LIFT = 50.0  # odds of a label that wants p's motif, against one that does not (picture)
HOUSE_LIFT = 50.0  # odds of a label that wants p's house (title)
PALETTE = 0.7  # part of the products in their motif's own colour: a theme has a palette, as in a real shop
SAME_COLOUR_LIFT = 2.0  # odds of a label of p's colour (picture)
PAIRED_COLOUR_LIFT = 1.5  # odds of a label of the colour that goes with p's
SIZE_LIFT = 1.5  # odds of a label of p's size (title)
KIND_STEPS = (
    1.0,
    0.6,
    0.3,
)  # odds of the next, the next but one and the last kind of p's group: A -> B is not B -> A
NEXT_GROUP = 0.5  # odds of the kind that stands at p's place in the next group
ANY_KIND = 0.001  # odds of every other kind
ZIPF = (
    1.6  # popularity of the r-th most popular of P products: (r + HEAD * P)^-ZIPF (Zipf-Mandelbrot)
)
HEAD = 1 / 30  # flattens the head, so that no handful of labels answers everything
MOTIF_WHIM = 0.3  # part of the labels that want another motif than their own
HOUSE_WHIM = 0.3  # part of the labels that want another house than their own
NOISE = 0.08  # part of the relations that are to a random product
RELATIONS = (4, 15)  # relations a product, from and to

# Shares of what is wrong with a catalog.
NO_TITLE = 0.04
NO_IMAGES = 0.05
NEITHER = 0.003  # of the products; at least one
DEAD_IMAGE = 0.03  # of the references: they lead nowhere
CORRUPT_IMAGE = 0.01  # of the references: bytes that are no whole picture
MARKUP = 0.03  # of the titles: HTML entities or tags
DUPLICATE = 0.005  # of the products: their id stands twice
DANGLING = 0.03  # of the relations: further ids outside the catalog
SELF = 0.003  # of the products: related to themselves
COLOUR_TOLD = 0.2  # titles that tell the colour
MOTIF_TOLD = 0.2  # titles that tell the motif
BRAND_TOLD = 0.85  # titles that tell the brand; those that do not tell the model
MODEL_TOLD = 0.4  # other titles that tell the model
SIZE_TOLD = 0.6
IMAGE_COUNTS = (0.06, 0.16, 0.28, 0.24, 0.16, 0.10)  # chances of 1, 2, ... images

SMALLEST = 60  # products: fewer do not make a catalog to split and learn from
COLD_LABELS = 0.63  # part of the products that stay labels in the default cold split

# House -> its brands and model series; a title tells one or both.
HOUSES = (
    (
        ("Alderby", "Brightwell", "Corvane", "Dunmore", "Eskdale"),
        ("Tarn 200", "Tarn 350", "Fell Pro"),
    ),
    (
        ("Fennick", "Garrow", "Hollin", "Inverley", "Juniper Row"),
        ("Orbit Mini", "Orbit Max", "Halo 12"),
    ),
    (
        ("Kestrow", "Lindqvist", "Marlowe", "Northquay", "Oakhurst"),
        ("Pike S", "Pike XL", "Delta 7"),
    ),
    (
        ("Pellworm", "Quillon", "Rosehip", "Saltmarsh", "Tamsin"),
        ("Nova One", "Nova Two", "Ember 40"),
    ),
    (
        ("Umberto", "Vossberg", "Wickham", "Yarrow", "Zellner"),
        ("Ridge A4", "Ridge B5", "Summit Lite"),
    ),
)
BRANDS = tuple(brand for brands, _ in HOUSES for brand in brands)
HOUSE_OF_BRAND = np.repeat(np.arange(len(HOUSES)), [len(brands) for brands, _ in HOUSES])
SIZES = (
    ("small", "mini", "compact"),
    ("medium", "standard", "regular size"),
    ("large", "big", "XL"),
)
NOUNS = {
    "mug": ("mug", "coffee mug", "cup"),
    "saucer": ("saucer", "side plate", "tea saucer"),
    "teapot": ("teapot", "tea pot", "brewing pot"),
    "tin": ("tea tin", "storage tin", "caddy"),
    "phone case": ("phone case", "cell phone cover", "bumper case"),
    "sleeve": ("laptop sleeve", "laptop pouch", "sleeve"),
    "mouse pad": ("mouse pad", "mouse mat", "desk pad"),
    "notebook": ("notebook", "journal", "spiral notepad"),
    "tote": ("tote bag", "shopper", "canvas tote"),
    "backpack": ("backpack", "rucksack", "day pack"),
    "wallet": ("wallet", "purse", "billfold"),
    "umbrella": ("umbrella", "brolly", "rain umbrella"),
    "t-shirt": ("t-shirt", "tee", "short sleeve shirt"),
    "hoodie": ("hoodie", "sweatshirt", "pullover"),
    "cap": ("cap", "baseball hat", "snapback"),
    "socks": ("socks", "crew socks", "ankle socks"),
    "cushion": ("cushion", "throw pillow", "pillow cover"),
    "blanket": ("blanket", "fleece throw", "bed throw"),
    "lamp": ("table lamp", "lamp", "night light"),
    "clock": ("wall clock", "clock", "silent clock"),
    "poster": ("poster", "art print", "wall print"),
    "candle": ("candle", "scented candle", "jar candle"),
    "plant pot": ("plant pot", "planter", "flower pot"),
    "watering can": ("watering can", "sprinkling can", "garden can"),
}
FILLERS = (
    "gift idea",
    "premium quality",
    "for home and office",
    "easy care",
    "new",
    "best seller",
    "with box",
    "dishwasher safe",
    "lightweight",
    "durable",
    "hand finished",
    "for men and women",
    "birthday present",
    "limited edition",
    "fast shipping",
    "set of 1",
    "everyday use",
    "eco friendly",
)


@dataclass(frozen=True, slots=True)
class World:
    """What is true of each product; every array is (P,) and but for `popularity` holds int64 codes."""

    kind: np.ndarray
    motif: np.ndarray
    colour: np.ndarray
    brand: np.ndarray
    house: np.ndarray
    size: np.ndarray
    wanted_motif: np.ndarray
    wanted_house: np.ndarray
    popularity: np.ndarray


def sample_catalog(products: int, seed: int) -> tuple[list[dict], dict[str, bytes], dict]:
    """The sample: (rows, image bytes by reference, facts), the same for the same arguments.

    A row has ASIN, title, images (references), also_buy (ASINs) and category. A dead reference has no bytes. `facts`
    are for source.json and hold `best_attainable`, in percent. Raises MufinError below 60 products.
    """
    if products < SMALLEST:
        raise MufinError(
            f"download.sample.products is {products}; the sample needs at least {SMALLEST}"
        )
    world = invent_world(products, seed)
    related = draw_relations(world, seed)
    rows, images = _rows(world, related, seed)
    facts = {
        "products": products,
        "seed": seed,
        "relations": sum(len(r) for r in related),
        "best_attainable": best_attainable(world, related),
        "best_attainable_cold": best_attainable(world, related, _cold_labels(products, seed)),
    }
    return rows, images, facts


def invent_world(products: int, seed: int) -> World:
    """The hidden truth of `products` products."""
    rng = np.random.default_rng([seed, 0])
    brand = rng.integers(len(BRANDS), size=products)
    motif = rng.integers(len(MOTIFS), size=products)
    house = HOUSE_OF_BRAND[brand]
    any_colour = rng.integers(len(COLOURS), size=products)
    return World(
        kind=rng.integers(len(KINDS), size=products),
        motif=motif,
        colour=np.where(rng.random(products) < PALETTE, motif % len(COLOURS), any_colour),
        brand=brand,
        house=house,
        size=rng.integers(len(SIZES), size=products),
        wanted_motif=_wanted(motif, len(MOTIFS), MOTIF_WHIM, rng),
        wanted_house=_wanted(house, len(HOUSES), HOUSE_WHIM, rng),
        popularity=(1.0 + HEAD * products + rng.permutation(products)) ** -ZIPF,
    )


def _wanted(own: np.ndarray, values: int, whim: float, rng: np.random.Generator) -> np.ndarray:
    """`own` but for a part `whim`, which gets a random other value."""
    other = (own + rng.integers(1, values, size=len(own))) % values
    return np.where(rng.random(len(own)) < whim, other, own)


def complements() -> np.ndarray:
    """(kinds, kinds) odds that a product of the row's kind is bought with one of the column's; not symmetric."""
    odds = np.full((len(KINDS), len(KINDS)), ANY_KIND)
    group = len(KIND_STEPS) + 1
    for kind in range(len(KINDS)):
        first = kind - kind % group
        for step, weight in enumerate(KIND_STEPS, start=1):
            odds[kind, first + (kind - first + step) % group] = weight
        odds[kind, (kind + group) % len(KINDS)] = NEXT_GROUP
    return odds


def relation_odds(world: World, product: int) -> np.ndarray:
    """(P,) float64: odds of each label for `product`, 0 for itself; products of constants, so exact anywhere."""
    gap = (world.colour - world.colour[product]) % len(COLOURS)
    odds = complements()[world.kind[product], world.kind] * world.popularity
    odds *= np.where(world.wanted_motif == world.motif[product], MOTIF_LIFT, 1.0)
    odds *= np.where(world.wanted_house == world.house[product], HOUSE_LIFT, 1.0)
    odds *= np.where(world.size == world.size[product], SIZE_LIFT, 1.0)
    odds *= np.where(
        gap == 0, SAME_COLOUR_LIFT, np.where(gap == len(COLOURS) // 2, PAIRED_COLOUR_LIFT, 1.0)
    )
    odds[product] = 0.0
    return odds


def draw_relations(world: World, seed: int) -> list[list[int]]:
    """The relations of each product, likeliest first on average: an exponential race by odds, then noise."""
    rng = np.random.default_rng([seed, 1])
    products = len(world.kind)
    related = []
    for product in range(products):
        odds = relation_odds(world, product)
        odds[product] = 1e-300  # it finishes last
        finish = rng.standard_exponential(products) / odds
        chosen = np.argsort(finish, kind="stable")[: rng.integers(RELATIONS[0], RELATIONS[1] + 1)]
        noisy = rng.random(len(chosen)) < NOISE
        anyone = rng.integers(products, size=len(chosen))
        mixed = np.where(noisy, anyone, chosen).tolist()
        related.append([label for label in dict.fromkeys(mixed) if label != product])
    return related


def best_attainable(
    world: World, related: list[list[int]], labels: np.ndarray | None = None
) -> dict[str, float]:
    """P@1 and P@5, in percent, of an oracle that ranks by the true odds and does not know what the dice gave.

    Every product is a datapoint and every other one a candidate, ties by the lower row; truth is what was drawn, noise
    included. With `labels`, (P,) bool, only those are candidates and truth, and only the others datapoints, as in a
    cold split. What curation drops later is still counted, so it is a bound within a point, not to the digit.
    """
    datapoints = range(len(related)) if labels is None else np.flatnonzero(~labels).tolist()
    hits = np.zeros((len(datapoints), 5))
    for row, product in enumerate(datapoints):
        odds = relation_odds(world, product)
        if labels is not None:
            odds[~labels] = 0.0
        best = np.argsort(-odds, kind="stable")[:5]
        hits[row] = np.isin(best, related[product]) & (odds[best] > 0)
    return {
        "P@1": round(100 * float(hits[:, 0].mean()), 2),
        "P@5": round(100 * float(hits.mean()), 2),
    }


def _cold_labels(products: int, seed: int) -> np.ndarray:
    """(P,) bool: a random part of the products, as large as the labels of the default cold split."""
    return np.random.default_rng([seed, 2]).random(products) < COLD_LABELS


def _rows(world: World, related: list[list[int]], seed: int) -> tuple[list[dict], dict[str, bytes]]:
    """The catalog as a shop would export it, with what is wrong in it, and the bytes of its pictures."""
    products = len(related)
    rng = np.random.default_rng([seed, 3])
    neither = rng.permutation(products)[: max(1, round(NEITHER * products))]
    no_title, no_images = rng.random(products) < NO_TITLE, rng.random(products) < NO_IMAGES
    no_title &= ~no_images  # never both, but for `neither`
    no_title[neither] = no_images[neither] = True
    rows, images = [], {}
    for product in range(products):
        uid = _uid(product)
        refs = [] if no_images[product] else _pictures(world, product, seed, images)
        rows.append(
            {
                "ASIN": uid,
                "title": "" if no_title[product] else _title(world, product, rng),
                "images": refs,
                "also_buy": _also_buy(product, related[product], rng),
                "category": ["Home & Gifts", KINDS[world.kind[product]].capitalize()],
            }
        )
    for product in rng.permutation(products)[: max(1, round(DUPLICATE * products))]:
        rows.append(rows[product] | {"title": rows[product]["title"].upper()})
    return rows, images


def _uid(product: int) -> str:
    return f"B{product:09d}"


def _also_buy(product: int, related: list[int], rng: np.random.Generator) -> list[str]:
    """The related ids, with some that lead outside the catalog and seldom the product's own."""
    uids = [_uid(label) for label in related]
    uids += [f"X{rng.integers(10**9):09d}" for _ in range(rng.binomial(len(related), DANGLING))]
    if rng.random() < SELF:
        uids.insert(0, _uid(product))
    return uids


def _title(world: World, product: int, rng: np.random.Generator) -> str:
    """A shopkeeper's title: always brand or model, mostly not colour and motif."""
    models = HOUSES[world.house[product]][1]
    brand_told = rng.random() < BRAND_TOLD
    model_told = not brand_told or rng.random() < MODEL_TOLD
    noun = _pick(NOUNS[KINDS[world.kind[product]]], rng)
    told = [
        COLOURS[world.colour[product]][0] if rng.random() < COLOUR_TOLD else "",
        MOTIFS[world.motif[product]] if rng.random() < MOTIF_TOLD else "",
        _pick(SIZES[world.size[product]], rng) if rng.random() < SIZE_TOLD else "",
    ]
    words = [
        BRANDS[world.brand[product]] if brand_told else "",
        *(told[i] for i in rng.permutation(3)),
        noun,
    ]
    if model_told:
        words.append(f"{_pick(('for', 'fits', 'suits model'), rng)} {_pick(models, rng)}")
    words += [FILLERS[i] for i in rng.permutation(len(FILLERS))[: rng.integers(0, 3)]]
    title = " ".join(word for word in words if word)
    return _marked_up(title, rng) if rng.random() < MARKUP else title


def _marked_up(title: str, rng: np.random.Generator) -> str:
    """The title as a careless export leaves it."""
    forms = ("  {}&nbsp;", "<b>{}</b>", "{} &amp; gift card", "{}<br/>", "&quot;{}&quot;")
    return _pick(forms, rng).format(title)


def _pick(values: tuple[str, ...], rng: np.random.Generator) -> str:
    return values[rng.integers(len(values))]


def _pictures(world: World, product: int, seed: int, images: dict[str, bytes]) -> list[str]:
    """The references of a product's pictures; those that are not dead are added to `images`."""
    rng = np.random.default_rng([seed, 4, product])
    count = 1 + int(
        np.searchsorted(np.cumsum(IMAGE_COUNTS), rng.random() * sum(IMAGE_COUNTS), side="right")
    )
    views = draw_views(world.kind[product], world.motif[product], world.colour[product], count, rng)
    refs = [f"img/{_uid(product)}-{view}.jpg" for view in range(count)]
    for ref, picture in zip(refs, views):
        chance = rng.random()
        if chance < CORRUPT_IMAGE:
            images[ref] = (
                picture[: len(picture) // 3]
                if rng.random() < 0.5
                else b"<html>404 not found</html>"
            )
        elif chance >= CORRUPT_IMAGE + DEAD_IMAGE:
            images[ref] = picture
    return refs
