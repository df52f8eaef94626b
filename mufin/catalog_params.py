"""Settings of the stages download and curate: where products and their relations come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from mufin.errors import shown
from mufin.param_checks import check, check_at_least, check_below_one, check_in, check_positive

WITH_ATTRIBUTES = ("sample", "catalog", "shopify", "woocommerce", "google-merchant")  # sources
AMAZON = ("amazon-2023", "amazon-2018", "amazon-2014")
WITH_TEXTS = (*WITH_ATTRIBUTES[1:], *AMAZON)  # sources of products with more texts than a title
MATCHES = ("case", "blanks", "zeros", "unicode")  # of download.match_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What the columns of your own catalog are called."""

    id: Annotated[
        str,
        "product id, the same in all rows of a product; required. A column inside another is named "
        "a.b, one in a list of objects a[].b",
    ]
    title: Annotated[str, "product title; may be empty"]
    images: Annotated[
        str | list[str],
        "list of image URLs, of paths relative to the catalog file, or of the images themselves; "
        "or a list of such columns",
    ]
    related: Annotated[
        str | list[str] | dict,
        "list of ids of related products: the answers to learn "
        "| a list of such columns | weights of columns, such as {also_buy: 1.0, also_view: 0.3} "
        "| []: none, the relations come from download.interactions",
    ]
    category: Annotated[str, "list of category names, broad to narrow; only for reports"]
    attributes: Annotated[
        list[str],
        "list of columns that are kept for filters of recommendations, such as price and brand; "
        "nothing is trained on them",
    ]
    texts: Annotated[
        list[str],
        "list of columns of further texts beside the title, such as description and bullet points; "
        "each text is one descriptor of the bag, and of a column with lists each item",
    ]

    def __post_init__(self):
        for name in ("images", "related"):
            value = getattr(self, name)
            if isinstance(value, list | dict):
                texts = all(isinstance(column, str) and column for column in value)
                check(texts, f"download.columns.{name}", value, "it must name columns")
        # uid is a column of attributes.parquet, and filters always know category
        distinct = set(self.attributes) - {"", "uid", "category"}
        check(
            len(distinct) == len(self.attributes),
            "download.columns.attributes",
            self.attributes,
            "it must name columns, each once, and none that is called uid or category",
        )
        check(
            len(set(self.texts) - {""}) == len(self.texts),
            "download.columns.texts",
            self.texts,
            "it must name columns, each once",
        )
        if isinstance(self.related, dict):
            weights = self.related.values()
            good = all(type(w) in (int, float) and 0 < w < 1e6 for w in weights)  # bool is an int
            check(good, "download.columns.related", self.related, "weights must be above 0")

    def related_weights(self) -> dict[str, float]:
        """{column of related ids: its weight}."""
        if isinstance(self.related, dict):
            return {column: float(weight) for column, weight in self.related.items()}
        return dict.fromkeys([self.related] if isinstance(self.related, str) else self.related, 1.0)

    def image_columns(self) -> list[str]:
        """The columns that hold images."""
        return [self.images] if isinstance(self.images, str) else self.images

    def kept(self) -> dict[str, list[str]]:
        """{attributes or texts: their columns}, of those that are named; some forms have none."""
        named = {"attributes": self.attributes, "texts": self.further_texts()}
        return {key: columns for key, columns in named.items() if columns}

    def further_texts(self) -> list[str]:
        """The columns that hold texts beside the title."""
        return [name for name in self.texts if name != self.title]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interactions:
    """Orders, sessions or ratings, from which relations are computed (section curate)."""

    location: Annotated[
        str | list[str] | None,
        "files of one row per basket and product: path, glob, URL, or a list of them | null: none",
    ]
    basket: Annotated[
        str | None,
        "column of the order, the session or the user; required, but for sources that have a form",
    ]
    item: Annotated[
        str | None, "column of the product's id; required, but for sources that have a form"
    ]
    time: Annotated[
        str | None,
        "column of the time: seconds since 1970, or a date such as 2026-11-28 | null: none",
    ]
    weight: Annotated[
        str | None, "column of a weight, such as a number of pieces; > 0 | null: all 1"
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTexts:
    """Labels that are no products, such as queries, tags or categories (the paper's A2Q-4M)."""

    location: Annotated[
        str | list[str] | None,
        "files of one row per label: path, glob, URL, or a list of them; download.columns.related "
        "then has ids of these | null: labels are products",
    ]
    id: Annotated[str, "column of the label's id"]
    text: Annotated[str, "column of the label's text"]
    prefix: Annotated[
        str, "put before the ids of labels, where products have the same ids; such as `query:`"
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVectors:
    """Vectors of images that someone else computed, in place of the images."""

    location: Annotated[
        str | None, "a file .npy of one row per image (n, width) | null: images are encoded by E_V"
    ]
    ids: Annotated[
        str | None,
        "the product of each row: a text file of one id per line, .npy, or JSON (a list, or an "
        "object of id: row or rows)",
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutfitTask:
    """Outfits with a blank as datapoints, and the items that fill it as labels (Table 3)."""

    split: Annotated[
        Literal["disjoint", "nondisjoint"] | None,
        "which of the released splits (sources polyvore, sample-outfits) "
        "| disjoint: no item of valid or test is in train, as in Table 3 "
        "| nondisjoint: items may be in several splits | null: products are items",
    ]
    blank_type: Annotated[
        bool, "true: the type of the item that is left out is a text of the datapoint"
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Size and seed of what is built in."""

    products: Annotated[int, "products to invent, >= 60 (source: sample)"]
    outfits: Annotated[int, "outfits to invent, >= 50 (source: sample-outfits)"]
    seed: Annotated[int, "integer >= 0; the same seed gives the same catalog, byte for byte"]

    def __post_init__(self):
        check_at_least(self, "download.sample", 60, "products")
        check_at_least(self, "download.sample", 50, "outfits")
        check_at_least(self, "download.sample", 0, "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """Where products and images come from."""

    source: Annotated[
        Literal[
            "sample",
            "sample-outfits",
            "catalog",
            "mm-amazontitles",
            "lf-amazontitles",
            "amazon-2023",
            "amazon-2018",
            "amazon-2014",
            "shopify",
            "woocommerce",
            "google-merchant",
            "hm",
            "movielens",
            "polyvore",
        ],
        "sample: the built-in catalog | sample-outfits: built-in outfits (docs/outfits.md) "
        "| catalog: your own files "
        "| mm-amazontitles, lf-amazontitles: data sets of the Extreme Classification Repository "
        "| amazon-2023, amazon-2018, amazon-2014: Amazon's product metadata, the releases of these "
        "years "
        "| shopify, woocommerce, google-merchant: what these tools export "
        "| hm, movielens, polyvore: public data sets (docs/own-catalog.md)",
    ]
    location: Annotated[
        str | list[str] | None,
        "path, glob, URL, or a list of them; for mm-amazontitles also a Google Drive id "
        "| null: nothing is needed (sample, sample-outfits), or the published file "
        "(mm-amazontitles)",
    ]
    columns: Annotated[Columns, "what your columns are called (source: catalog)"]
    encoding: Annotated[
        str | None,
        "of text files, such as cp1252 or latin-1 | null: as the first bytes say (BOM), else UTF-8",
    ]
    match_ids: Annotated[
        list[Literal["case", "blanks", "zeros", "unicode"]],
        "differences between ids of products and related ids that do not count "
        "| case: A1 is a1 | blanks: A 1 is A1 | zeros: 007 is 7 | unicode: other code points of "
        "the same characters (NFKC)",
    ]
    bad_rows: Annotated[
        float, "share of rows that may be faulty; these are dropped and counted, [0, 1)"
    ]
    interactions: Annotated[
        Interactions, "orders, sessions or ratings: relations from what people did"
    ]
    labels: Annotated[LabelTexts, "labels that are no products: queries, tags or categories"]
    image_vectors: Annotated[ImageVectors, "vectors in place of images"]
    outfits: Annotated[OutfitTask, "outfits with a blank as datapoints"]
    sample: Annotated[Sample, "the built-in catalog, or outfits (sources sample, sample-outfits)"]
    max_images: Annotated[int, "images kept per product, the first ones, >= 0; paper 15 (App. B)"]
    max_texts: Annotated[
        int, "texts kept per product, its title and then the first others, >= 1; 1: the title alone"
    ]
    max_failed: Annotated[float, "the stage fails if a larger share of images is missing, [0, 1]"]
    timeout: Annotated[float, "seconds to wait for a server to connect or to send more, > 0"]
    max_bytes: Annotated[int, "bytes per image, at most; >= 1"]
    retries: Annotated[int, "more attempts after a failed one, with growing pauses; >= 0"]
    per_host: Annotated[int, "requests to one host at the same time, >= 1"]
    max_redirects: Annotated[int, "redirects followed per image, >= 0"]
    private_addresses: Annotated[bool, "true: URLs may point to private and loopback addresses"]
    user_agent: Annotated[str, "how requests name themselves to servers"]

    def __post_init__(self):
        check_at_least(self, "download", 0, "max_images", "retries", "max_redirects")
        check_at_least(self, "download", 1, "max_texts", "max_bytes", "per_host")
        check_positive(self, "download", "timeout")
        check_in(self, "download", 0, 1, "max_failed")
        check_below_one(self, "download", "bad_rows")
        printable = self.user_agent.isascii() and self.user_agent.isprintable()
        check(
            bool(self.user_agent.strip()) and printable,
            "download.user_agent",
            self.user_agent,
            "it must be a line of ASCII characters",
        )
        needs = self.source not in ("sample", "sample-outfits", "mm-amazontitles")
        check(
            not (needs and not self.location),
            "download.location",
            self.location,
            f"source {self.source} needs a path, a glob or a URL there",
        )
        check(
            not self.columns.attributes or self.source in WITH_ATTRIBUTES,
            "download.columns.attributes",
            self.columns.attributes,
            f"of source {self.source} no columns are kept for filters; set it to []",
        )
        check(
            not self.columns.texts or self.source in WITH_TEXTS,
            "download.columns.texts",
            self.columns.texts,
            f"products of source {self.source} have no text but the title; set it to []",
        )
        self._check_interactions()
        self._check_outfits()
        vectors = self.image_vectors
        check(
            (vectors.location is None) == (vectors.ids is None),
            "download.image_vectors",
            vectors.location or vectors.ids,
            "location and ids belong together: set both or none",
        )

    def _check_outfits(self) -> None:
        split, built_in = self.outfits.split, self.source == "sample-outfits"
        check(
            split is None or built_in or self.source == "polyvore",
            "download.outfits.split",
            split,
            f"products of source {self.source} are no outfits; set it to null",
        )
        check(
            split is not None or not built_in,
            "download.outfits.split",
            split,
            "source sample-outfits needs disjoint or nondisjoint",
        )
        others = {
            "interactions.location": self.interactions.location,
            "labels.location": self.labels.location,
            "image_vectors.location": self.image_vectors.location,
        }
        for name, value in others.items():
            check(
                split is None or value is None,
                f"download.{name}",
                value,
                "outfits with a blank have items, labels and pictures of their own; set it to null",
            )

    def _check_interactions(self) -> None:
        s = self.interactions
        for name in ("basket", "item"):
            named = s.location is None or self.source != "catalog" or getattr(s, name)
            check(
                bool(named),
                f"download.interactions.{name}",
                getattr(s, name),
                f"name the column of {shown(s.location)} that holds it",
            )
        labels = self.labels.location
        check(
            s.location is None or labels is None,
            "download.labels.location",
            labels,
            "with download.interactions labels are products; set one of the two to null",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CoOccurrence:
    """How interactions become relations: products that occur in the same baskets."""

    score: Annotated[
        Literal["cosine", "lift", "count"],
        "strength of a pair, with c its baskets, a and b those of its products, of n in all "
        "| cosine: c / sqrt(a b) | lift: c n / (a b) | count: c",
    ]
    min_support: Annotated[float, "baskets that a pair must be in (sum of weights), > 0"]
    per_product: Annotated[int, "related products kept per product, the strongest, >= 1"]
    per_basket: Annotated[
        int, "products read per basket, >= 2; of a larger one the last ones (by time, else by row)"
    ]
    window: Annotated[
        float | None,
        "days between the two products of a pair, at most; > 0 | null: the whole basket",
    ]
    direction: Annotated[
        Literal["both", "after"],
        "both: a pair relates each to the other | after: the one that came first to the other",
    ]
    half_life: Annotated[
        float | None, "days after which a pair counts half, > 0 | null: old ones count as new ones"
    ]

    def __post_init__(self):
        check_at_least(self, "curate.interactions", 1, "per_product")
        check_at_least(self, "curate.interactions", 2, "per_basket")
        check_positive(self, "curate.interactions", "min_support")
        for name in ("window", "half_life"):
            if getattr(self, name) is not None:
                check_positive(self, "curate.interactions", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curate:
    """How the catalog is divided into train, valid and test."""

    split: Annotated[
        Literal["cold", "warm", "time"],
        "cold: products of valid and test take no part in training, as label or datapoint "
        "| warm: they may be labels of train datapoints "
        "| time: train on interactions of the past, valid and test on later ones "
        "| ignored where the data comes with a split of its own",
    ]
    seed: Annotated[int, "integer >= 0; draws the split and the subsample"]
    test: Annotated[
        float, "share of the datapoints (time: of the interactions) held out for test, [0, 1)"
    ]
    valid: Annotated[float, "share of the others held out for valid, [0, 1)"]
    max_products: Annotated[
        int | None, "subsample of so many products with dense relations, >= 2 | null: all products"
    ]
    interactions: Annotated[CoOccurrence, "relations from download.interactions"]

    def __post_init__(self):
        check_at_least(self, "curate", 0, "seed")
        check_below_one(self, "curate", "test", "valid")
        check(
            self.max_products is None or self.max_products >= 2,
            "curate.max_products",
            self.max_products,
            "it must be null or at least 2",
        )
