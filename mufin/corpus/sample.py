"""The built-in sample: a seeded, generated catalog whose relations need both title and picture.

A product has a kind (mug, saucer, ...), a motif (anchor, cat, ...) and a colour, which its pictures
show. It has a brand, a house (the maker of the brand and of its model series) and a size, which
only its title can tell. The relations of a product p are drawn without replacement. The odds of a
label l are

    COMPLEMENT[kind_p, kind_l] x MOTIF_LIFT^[motif_p = wanted_motif_l]
        x HOUSE_LIFT^[house_p = wanted_house_l] x colour lift x size lift x popularity_l

where x^[condition] is x if the condition holds and 1 otherwise. So a good label complements p's
kind, suits p's motif, which a picture shows, and suits p's house, which a title tells.

The popularity of a label (Zipf), its wanted motif and its wanted house are hidden. The wanted motif
and house are mostly the label's own, otherwise random. The popularity and the random ones appear in
no title and no picture, so only the free vector eta_l of a classifier can learn them (MUFIN Sec. 3,
Fig. 2b). The constants below set the strengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mufin.corpus.sample_pictures import COLOURS, KINDS, MOTIFS, draw_views
from mufin.errors import MufinError

# Strengths of the relations. A lift is the factor on the odds of a label.
MOTIF_LIFT = 50.0  # if the label wants p's motif (picture)
HOUSE_LIFT = 50.0  # if the label wants p's house (title)
SAME_COLOUR_LIFT = 2.0  # if the label has p's colour (picture)
PAIRED_COLOUR_LIFT = 1.5  # if the label has the colour that is paired with p's
SIZE_LIFT = 1.5  # if the label has p's size (title)
PALETTE = 0.7  # fraction of products in the colour of their motif, as real themes have a palette
# COMPLEMENT within a group of four kinds: the odds of the next kind, the one after it, and the
# last. They differ, so that relations are asymmetric: A -> B does not mean B -> A.
KIND_STEPS = (1.0, 0.6, 0.3)
NEXT_GROUP = 0.5  # COMPLEMENT for the kind at the same place in the next group
ANY_KIND = 0.001  # COMPLEMENT for every other kind
# The popularity of the r-th of P products, r from 0, is (1 + r + HEAD * P)^-ZIPF, a law of
# Zipf-Mandelbrot. HEAD flattens its head, so that a few labels do not answer every datapoint.
ZIPF = 1.6
HEAD = 1 / 30
MOTIF_WHIM = 0.3  # fraction of labels that want another motif than their own
HOUSE_WHIM = 0.3  # fraction of labels that want another house than their own
NOISE = 0.08  # fraction of relations that are replaced by a random product
RELATIONS = (4, 15)  # fewest and most relations per product

# Faults of real catalogs, as fractions.
NO_TITLE = 0.04  # of the products
NO_IMAGES = 0.05  # of the products
NEITHER = 0.003  # of the products, but at least one: neither title nor images
DEAD_IMAGE = 0.03  # of the image references: they lead nowhere
CORRUPT_IMAGE = 0.01  # of the image references: their bytes are not a complete picture
MARKUP = 0.03  # of the titles: HTML entities or tags
DUPLICATE = 0.005  # of the products: another row has the same id
DANGLING = 0.03  # of the relations: additional ids that are not in the catalog
SELF = 0.003  # of the products: related to themselves

# What a title tells, as fractions of the titles.
COLOUR_TOLD = 0.2
MOTIF_TOLD = 0.2
BRAND_TOLD = 0.85  # the titles without the brand tell the model
MODEL_TOLD = 0.4  # of the titles with the brand: they tell the model too
SIZE_TOLD = 0.6
IMAGE_COUNTS = (0.06, 0.16, 0.28, 0.24, 0.16, 0.10)  # probabilities of 1, 2, ... images

SMALLEST = 60  # fewest products that can be split and trained on
COLD_LABELS = 0.63  # fraction of the products that are labels in the default cold split

# The brands and the model series of each house; a title tells a brand, a model, or both.
# fmt: off
HOUSES = (
    (("Alderby", "Brightwell", "Corvane", "Dunmore", "Eskdale"),
     ("Tarn 200", "Tarn 350", "Fell Pro")),
    (("Fennick", "Garrow", "Hollin", "Inverley", "Juniper Row"),
     ("Orbit Mini", "Orbit Max", "Halo 12")),
    (("Kestrow", "Lindqvist", "Marlowe", "Northquay", "Oakhurst"),
     ("Pike S", "Pike XL", "Delta 7")),
    (("Pellworm", "Quillon", "Rosehip", "Saltmarsh", "Tamsin"),
     ("Nova One", "Nova Two", "Ember 40")),
    (("Umberto", "Vossberg", "Wickham", "Yarrow", "Zellner"),
     ("Ridge A4", "Ridge B5", "Summit Lite")),
)
# fmt: on
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
# fmt: off
FILLERS = (
    "gift idea", "premium quality", "for home and office", "easy care", "new", "best seller",
    "with box", "dishwasher safe", "lightweight", "durable", "hand finished", "for men and women",
    "birthday present", "limited edition", "fast shipping", "set of 1", "everyday use",
    "eco friendly",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class World:
    """The hidden facts about P products, (P,) arrays; all are int64 codes except `popularity`."""

    kind: np.ndarray  # position in KINDS
    motif: np.ndarray  # position in MOTIFS
    colour: np.ndarray  # position in COLOURS
    brand: np.ndarray  # position in BRANDS
    house: np.ndarray  # position in HOUSES
    size: np.ndarray  # position in SIZES
    wanted_motif: np.ndarray  # as a label: the motif of the products that it goes with
    wanted_house: np.ndarray  # as a label: the house of the products that it goes with
    popularity: np.ndarray  # float64, a factor on its odds as a label


def sample_catalog(products: int, seed: int) -> tuple[list[dict], dict[str, bytes], dict]:
    """(rows, {image reference: bytes}, facts) of the sample; a function of its arguments alone.

    A row has ASIN, title, images (references), also_buy (ASINs) and category. A dead reference has
    no bytes. `facts` go into source.json, with the `best_attainable` precisions in percent. Raises
    MufinError for fewer than 60 products.
    """
    if products < SMALLEST:
        raise MufinError(
            f"download.sample.products is {products}; set it to at least {SMALLEST}, "
            "the fewest products that can be split"
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


# Each part of the sample draws from a generator of its own, seeded with [seed, part]. So a change
# of one part leaves the random numbers of the others as they are.


def invent_world(products: int, seed: int) -> World:
    """The hidden facts about `products` products."""
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
    """`own` codes in [0, values); a fraction `whim` of them is replaced by a random other code."""
    other = (own + rng.integers(1, values, size=len(own))) % values
    return np.where(rng.random(len(own)) < whim, other, own)


def complements() -> np.ndarray:
    """COMPLEMENT, (kinds, kinds) float64: odds that a product of the row's kind goes with a label
    of the column's kind; not symmetric."""
    odds = np.full((len(KINDS), len(KINDS)), ANY_KIND)
    group = len(KIND_STEPS) + 1
    for kind in range(len(KINDS)):
        first = kind - kind % group
        for step, weight in enumerate(KIND_STEPS, start=1):
            odds[kind, first + (kind - first + step) % group] = weight
        odds[kind, (kind + group) % len(KINDS)] = NEXT_GROUP
    return odds


class RelationOdds:
    """The odds of all labels for a product, quickly for one product after the other.

    What two products that share a code share of their odds is computed once per code.
    """

    def __init__(self, world: World):
        gap = (world.colour - np.arange(len(COLOURS))[:, None]) % len(COLOURS)
        paired = np.where(gap == len(COLOURS) // 2, PAIRED_COLOUR_LIFT, 1.0)
        # Multiplications only, whose results are the same on every platform, if their order is too.
        self._factors = (
            (world.kind, complements()[:, world.kind] * world.popularity),
            (world.motif, _lifts(world.wanted_motif, len(MOTIFS), MOTIF_LIFT)),
            (world.house, _lifts(world.wanted_house, len(HOUSES), HOUSE_LIFT)),
            (world.size, _lifts(world.size, len(SIZES), SIZE_LIFT)),
            (world.colour, np.where(gap == 0, SAME_COLOUR_LIFT, paired)),
        )

    def of(self, product: int) -> np.ndarray:
        """(P,) float64: the odds of each label for `product`, 0 for the product itself."""
        first, *others = (table[codes[product]] for codes, table in self._factors)
        odds = first.copy()
        for factor in others:
            odds *= factor
        odds[product] = 0.0
        return odds


def _lifts(wanted: np.ndarray, codes: int, lift: float) -> np.ndarray:
    """(codes, P) float64: `lift` where a label wants the code, else 1."""
    return np.where(wanted == np.arange(codes)[:, None], lift, 1.0)


def draw_relations(world: World, seed: int) -> list[list[int]]:
    """The relations of each product: distinct labels drawn by their odds, likely ones mostly first.

    Some are then replaced by random products (`NOISE`).
    """
    rng = np.random.default_rng([seed, 1])
    products, odds_of = len(world.kind), RelationOdds(world)
    related = []
    for product in range(products):
        odds = odds_of.of(product)
        odds[product] = 1e-300  # so that the product itself comes last, without a division by 0
        # Exponential waiting times with the odds as rates: the order in which they end is a draw
        # without replacement in proportion to the odds.
        finish = rng.standard_exponential(products) / odds
        chosen = _smallest(finish, int(rng.integers(RELATIONS[0], RELATIONS[1] + 1)))
        noisy = rng.random(len(chosen)) < NOISE
        anyone = rng.integers(products, size=len(chosen))
        mixed = np.where(noisy, anyone, chosen).tolist()
        related.append([label for label in dict.fromkeys(mixed) if label != product])
    return related


def best_attainable(
    world: World, related: list[list[int]], labels: np.ndarray | None = None
) -> dict[str, float]:
    """{P@1, P@5} in percent of an oracle that ranks by the true odds, but cannot foresee the draws.

    Each product is a datapoint and every other product a candidate; ties go to the lower row. The
    truth is what was drawn, noise included. With `labels`, (P,) bool, only those products are
    candidates and truth, and only the others are datapoints, as in a cold split.

    The value bounds a method's precision approximately: curation later drops some of the products
    that are counted here, which moves it by less than a point.
    """
    datapoints = range(len(related)) if labels is None else np.flatnonzero(~labels).tolist()
    hits, odds_of = np.zeros((len(datapoints), 5)), RelationOdds(world)
    for row, product in enumerate(datapoints):
        odds = odds_of.of(product)
        if labels is not None:
            odds[~labels] = 0.0
        best = _smallest(-odds, 5)
        hits[row] = np.isin(best, related[product]) & (odds[best] > 0)
    return {
        "P@1": round(100 * float(hits[:, 0].mean()), 2),
        "P@5": round(100 * float(hits.mean()), 2),
    }


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` smallest values, ascending; of equal ones the first comes first."""
    within = np.flatnonzero(values <= np.partition(values, count - 1)[count - 1])
    return within[np.argsort(values[within], kind="stable")][:count]


def _cold_labels(products: int, seed: int) -> np.ndarray:
    """(P,) bool: a random set of products, as many as the labels of the default cold split."""
    return np.random.default_rng([seed, 2]).random(products) < COLD_LABELS


def _rows(world: World, related: list[list[int]], seed: int) -> tuple[list[dict], dict[str, bytes]]:
    """The catalog as a shop would export it, faults included, and {image reference: bytes}."""
    products = len(related)
    rng = np.random.default_rng([seed, 3])
    neither = rng.permutation(products)[: max(1, round(NEITHER * products))]
    no_title, no_images = rng.random(products) < NO_TITLE, rng.random(products) < NO_IMAGES
    no_title &= ~no_images  # only the products in `neither` lack both
    no_title[neither] = no_images[neither] = True
    rows: list[dict] = []
    images: dict[str, bytes] = {}
    for product in range(products):
        refs = [] if no_images[product] else _pictures(world, product, seed, images)
        rows.append(
            {
                "ASIN": _uid(product),
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
    """The related ids, a few ids outside the catalog, and rarely the product's own id."""
    uids = [_uid(label) for label in related]
    uids += [f"X{rng.integers(10**9):09d}" for _ in range(rng.binomial(len(related), DANGLING))]
    if rng.random() < SELF:
        uids.insert(0, _uid(product))
    return uids


def _title(world: World, product: int, rng: np.random.Generator) -> str:
    """A title as a shopkeeper writes it: always with a brand or model, mostly without a motif."""
    models = HOUSES[world.house[product]][1]
    brand_told = rng.random() < BRAND_TOLD
    model_told = not brand_told or rng.random() < MODEL_TOLD
    noun = _pick(NOUNS[KINDS[world.kind[product]]], rng)
    told = [
        COLOURS[world.colour[product]][0] if rng.random() < COLOUR_TOLD else "",
        MOTIFS[world.motif[product]] if rng.random() < MOTIF_TOLD else "",
        _pick(SIZES[world.size[product]], rng) if rng.random() < SIZE_TOLD else "",
    ]
    words = [BRANDS[world.brand[product]]] if brand_told else []
    words += [told[i] for i in rng.permutation(3)]
    words.append(noun)
    if model_told:
        words.append(f"{_pick(('for', 'fits', 'suits model'), rng)} {_pick(models, rng)}")
    words += [FILLERS[i] for i in rng.permutation(len(FILLERS))[: rng.integers(0, 3)]]
    title = " ".join(word for word in words if word)
    return _marked_up(title, rng) if rng.random() < MARKUP else title


def _marked_up(title: str, rng: np.random.Generator) -> str:
    """The title with entities, tags or extra blanks, as careless exports have them."""
    forms = ("  {}&nbsp;", "<b>{}</b>", "{} &amp; gift card", "{}<br/>", "&quot;{}&quot;")
    return _pick(forms, rng).format(title)


def _pick(values: tuple[str, ...], rng: np.random.Generator) -> str:
    return values[rng.integers(len(values))]


def _pictures(world: World, product: int, seed: int, images: dict[str, bytes]) -> list[str]:
    """The image references of a product; adds the bytes of those that are not dead to `images`."""
    rng = np.random.default_rng([seed, 4, product])
    bounds = np.cumsum(IMAGE_COUNTS)
    count = 1 + int(np.searchsorted(bounds, rng.random() * sum(IMAGE_COUNTS), side="right"))
    views = draw_views(world.kind[product], world.motif[product], world.colour[product], count, rng)
    refs = [f"img/{_uid(product)}-{view}.jpg" for view in range(count)]
    for ref, picture in zip(refs, views):
        chance = rng.random()
        if chance < CORRUPT_IMAGE:
            cut_off = rng.random() < 0.5
            images[ref] = picture[: len(picture) // 3] if cut_off else b"<html>404 not found</html>"
        elif chance >= CORRUPT_IMAGE + DEAD_IMAGE:
            images[ref] = picture
    return refs
