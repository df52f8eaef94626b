"""How large a catalog is: given, found in data/, known of a source, or derived and said so."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import NamedTuple

from mufin.errors import MufinError
from mufin.params import Params


class Known(NamedTuple):
    """What is published of a data set; None where it is not."""

    train: int  # datapoints, before valid is taken out of them
    test: int
    labels: int
    products: int
    images: int  # distinct pictures
    pictures: float  # per datapoint
    label_pictures: float  # per label
    longest: int  # pictures of the product that has most
    relations: float  # labels per train datapoint
    tokens: float  # per title
    note: str


# MUFIN Table 1. A label of A2Q-4M is a query without a picture; its products are datapoints and
# labels. The paper leaves out its means per datapoint: one picture per advertisement follows from
# the text, the labels per datapoint are assumed.
KNOWN = {
    "mm-amazontitles-300k": Known(
        586_781,
        260_536,
        303_296,
        847_317,
        4_160_000,
        4.91,
        4.91,
        15,
        8.13,
        20.41,
        "MUFIN Table 1",
    ),
    "a2q-4m": Known(
        9_618_490,
        3_933_149,
        4_528_191,
        9_618_490 + 3_933_149 + 4_528_191,
        9_618_490 + 3_933_149,
        1.0,
        0.0,
        1,
        8.0,
        20.0,
        "MUFIN Table 1; 1 picture and 8 labels per datapoint are assumed",
    ),
}
OF_SOURCE = {"mm-amazontitles": "mm-amazontitles-300k"}  # download.source -> data set
PICTURES, RELATIONS, TOKENS, PICTURE_BYTES = 4.91, 8.0, 20.0, 40_000.0  # where nothing is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Counts of products, labels, datapoints and pictures, and means per product."""

    products: int  # rows of products.parquet, labels that are no products included
    labels: int
    unseen: int  # labels that training has not seen (curate.split: cold, time)
    train: int  # datapoints that train
    valid: int
    test: int
    images: int  # distinct pictures
    pictures: float  # per datapoint
    label_pictures: float  # per label
    longest: int  # pictures of the product that has most
    relations: float  # labels per train datapoint
    tokens: float  # per title
    picture_bytes: float  # of a file
    terms: int = 0  # title words with a learnt vector; 0: not known
    vocabulary: int = 0  # tokens of an E_T with random weights; 0: not known
    origins: dict[str, str] = field(default_factory=dict)  # field -> where it comes from

    @property
    def references(self) -> float:
        """Pictures of all products, those of several products several times."""
        others = max(self.products - self.labels, 0)
        if self.label_pictures == self.pictures:
            return self.products * self.pictures
        return others * self.pictures + self.labels * self.label_pictures

    @property
    def pairs(self) -> float:
        """Datapoint-label pairs of train."""
        return self.train * self.relations


def sizes_of(
    params: Params, given: dict[str, float], found: dict[str, float], like: str | None
) -> Sizes:
    """The sizes of a run: what is `given`, else `found` in data/, else known, else derived.

    `like` names a data set of `KNOWN`; without it that of download.source is taken. Raises
    MufinError if nothing says how many products there are.
    """
    known = _of_data_set(params, _data_set(params, like))
    if like is not None:
        found = {}
    values: dict[str, float] = {}
    origins: dict[str, str] = {}
    for origin, source in (("given", given), ("data/", found), known):
        for name, value in source.items():
            if name not in values:
                values[name], origins[name] = value, origin
    if "products" not in values:
        if {"train", "test"} <= values.keys():
            values["products"] = values["train"] + values.get("valid", 0) + values["test"]
        else:
            raise MufinError(
                f"nothing says how many products download.source {params.download.source} has; "
                "give --products, or --train and --test, or run download and curate first"
            )
    for name, (value, rule) in _rules(params, values):
        if name not in values:
            values[name], origins[name] = value, rule
    counts = {f.name for f in fields(Sizes) if f.type == "int"}
    typed = {n: round(v) if n in counts else float(v) for n, v in values.items()}
    return Sizes(**typed, origins=origins)  # type: ignore[arg-type]


def _data_set(params: Params, like: str | None) -> str | None:
    if like is None:
        return OF_SOURCE.get(params.download.source)
    if like not in KNOWN:
        raise MufinError(f"--like is {like!r}; it must be one of {', '.join(sorted(KNOWN))}")
    return like


def _of_data_set(params: Params, name: str | None) -> tuple[str, dict[str, float]]:
    """Where the sizes of a data set or of the sample come from, and these sizes."""
    if name is None:
        if params.download.source == "sample":
            return "download.sample.products", {
                "products": params.download.sample.products,
                "pictures": 3.3,
                "relations": 5.9,
                "tokens": 9.0,
                "picture_bytes": 1_500.0,
            }
        if params.download.source == "sample-outfits":
            return "download.sample.outfits", _of_outfits(params.download.sample.outfits)
        return "", {}
    k, valid = KNOWN[name], params.curate.valid
    return f"{name}: {k.note}", {
        "products": k.products,
        "labels": k.labels,
        "unseen": 0,
        "train": k.train * (1 - valid),
        "valid": k.train * valid,
        "test": k.test,
        "images": k.images,
        "pictures": min(k.pictures, params.download.max_images),
        "label_pictures": min(k.label_pictures, params.download.max_images),
        "longest": min(k.longest, params.download.max_images),
        "relations": k.relations,
        "tokens": k.tokens,
    }


def _of_outfits(outfits: int) -> dict[str, float]:
    """The sizes of generated outfits: five items each, and of train as many datapoints."""
    items = 5 * outfits
    counts = {"train": 0.65 * items, "valid": 0.1 * outfits, "test": 0.25 * outfits}
    return counts | {
        "products": items + sum(counts.values()),
        "labels": 0.65 * items,
        "unseen": 0.35 * items,
        "images": items,
        "pictures": 4.0,
        "label_pictures": 1.0,
        "longest": 5,
        "relations": 1.0,
        "tokens": 27.0,
        "picture_bytes": 1_500.0,
    }


def _rules(params: Params, values: dict[str, float]) -> list[tuple[str, tuple[float, str]]]:
    """What follows from the number of products and the settings, in this order.

    The split is that of `corpus.splits`: test is a fraction of all, valid of what remains. Labels
    are an upper bound: products that no train datapoint is related to are none.
    """
    c, products = params.curate, values["products"]
    if c.max_products:
        products = min(products, c.max_products)
    cold, asked = c.split != "warm", "of the split in curate"
    test = values.get("test", c.test * products)
    valid = values.get("valid", c.valid * (products - test))
    train = values.get("train", products - test - valid)
    pictures, origin = PICTURES, "assumed, as in MUFIN Table 1"
    if "images" in values:
        pictures, origin = values["images"] / values["products"], "images per product"
    pictures = values.get("pictures", min(pictures, params.download.max_images))
    return [
        ("test", (test, asked)),
        ("valid", (valid, asked)),
        ("train", (train, asked)),
        ("labels", (train if cold else products, "at most, by curate.split")),
        ("unseen", (valid + test if cold else 0, "at most, by curate.split")),
        ("pictures", (pictures, origin)),
        ("label_pictures", (pictures, "as datapoints")),
        ("longest", (params.download.max_images, "download.max_images")),
        ("images", (values["products"] * pictures, "pictures per product")),
        ("relations", (RELATIONS, "assumed, as in MUFIN Table 1")),
        ("tokens", (TOKENS, "assumed, as in MUFIN Table 1")),
        ("picture_bytes", (PICTURE_BYTES, "assumed")),
    ]
