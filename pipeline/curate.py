"""Stage curate: clean products, labels, splits and filter pairs (MUFIN Sec. 4, Datasets; App. B).

python -m pipeline.curate

All passes over the raw tables go batch by batch; `mufin/corpus/clean_rows.py` says what is kept in
memory. Relations come from the related ids of the catalog, from interactions, or from both.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mufin import runtime
from mufin.artifacts.attributes import NAME
from mufin.artifacts.contents import checked
from mufin.artifacts.curated import Split, write_split
from mufin.artifacts.files import artifact_json, write_json
from mufin.artifacts.outfits import write_outfits
from mufin.artifacts.publication import publish
from mufin.artifacts.tables import SCHEMAS, read_table, temporary_batches, write_table
from mufin.artifacts.texts import NAME as TEXTS
from mufin.corpus import behaviour, splits
from mufin.corpus.attribute_rows import write_attributes
from mufin.corpus.catalog import UNKNOWN, Catalog, distinct, related
from mufin.corpus.clean_rows import clean_rows
from mufin.corpus.cleaning import clean_relations
from mufin.corpus.outfit_rows import outfits_of
from mufin.corpus.relations import Relations, united
from mufin.corpus.subsample import dense_subsample
from mufin.corpus.text_rows import text_statistics, with_texts, write_texts
from mufin.corpus.undecodable import without_undecodable
from mufin.errors import MufinError, sentence
from mufin.params import Curate, load_params
from mufin.ragged import Lists


def main(home: runtime.Home = Path(".")):
    """Clean products, drop those without title and picture, build labels, splits, filter pairs."""
    s, raw = load_params(home / "params.yaml").curate, home / "data/raw"
    checked(raw)
    facts = artifact_json(raw / "source.json")
    released = bool(facts.get("released"))
    with runtime.measured("curate", home) as report:
        with publish(home / "data/curated") as folder:
            folder.mkdir()
            rows = folder.parent / "rows.parquet"
            labels = bool(facts.get("labels")) and not released
            make = _released if released else _by_time if s.split == "time" else _own_split
            # `make` alone holds the first catalog, so that it can free the lookups of ids.
            catalog, made, kind = make(raw, facts, _catalog(raw, rows, facts, labels), s)
            _check_not_empty(catalog, made, kind, s)
            if facts.get("outfit_split"):
                write_outfits(outfits_of(raw / "outfits", catalog), folder)
            catalog = catalog.rows_alone()
            _write(catalog, made, kind, raw, folder)
        report.items = len(catalog.source.tokens)
        dropped = {"dropped": catalog.dropped | made.dropped}
        if catalog.examples:
            dropped["examples"] = catalog.examples
        report.facts = {"split": kind} | _statistics(catalog, made) | dropped
    for reason, example in catalog.examples.items():
        count, said = catalog.dropped[reason], reason
        if reason == UNKNOWN:
            known = "labels" if labels else "the catalog"
            said = f"related ids not in {known}"
        _say(f"{said}: {count}, such as {example}")


def _catalog(raw: Path, rows: Path, facts: dict, labels: bool) -> Catalog:
    """The distinct products, without relations yet; the cleaned rows go to the file `rows`."""
    released = bool(facts.get("released"))
    source = clean_rows(raw, rows, facts.get("match_ids", []), labels)
    source = with_texts(source, raw, facts.get("max_texts"))
    lost: dict[str, str] = {}
    if not released and not facts.get("vectors"):
        source, lost = without_undecodable(source, raw / "images", runtime.workers())
    catalog = distinct(source, raw, released)
    return replace(catalog, examples=catalog.examples | lost)


# Splits


def _own_split(
    raw: Path, facts: dict, catalog: Catalog, s: Curate
) -> tuple[Catalog, splits.Splits, str]:
    """A cold or warm split of all products, or of a subsample of `curate.max_products`."""
    _check_two(catalog)
    catalog = related(raw, catalog, facts.get("label_prefix", ""))
    if facts.get("interactions"):
        catalog = behaviour.resolved(raw, catalog, _scratch(catalog, "interactions"))
        relations, gone = _by_baskets(catalog, s)
        catalog = replace(
            catalog,
            relations=united(catalog.relations, relations),
            dropped=catalog.dropped | gone,
        )
    catalog = catalog.without_ids()
    _check_related(catalog, facts)
    if s.max_products and s.max_products < catalog.first_label:
        catalog, _ = _subsampled(catalog, catalog.relations.lists, s)
    catalog, rng = catalog.without_unused_labels(), np.random.default_rng([s.seed, 0])
    relations, shares = catalog.relations.lists, (s.test, s.valid, rng)
    if catalog.has_labels:
        if s.split == "warm":
            _say("curate.split warm is the same as cold where labels are no products")
        made = splits.cold_split(relations, *shares, first_label=catalog.first_label)
        return catalog, _weighted(made, catalog.relations), "cold"
    make = splits.cold_split if s.split == "cold" else splits.warm_split
    return catalog, _weighted(make(relations, *shares), catalog.relations), s.split


def _by_time(
    raw: Path, facts: dict, catalog: Catalog, s: Curate
) -> tuple[Catalog, splits.Splits, str]:
    """A split by the times of interactions; relations of columns have no time and are not used."""
    _check_two(catalog)
    if not facts.get("interactions"):
        raise MufinError(
            "curate.split is time, but the data has no interactions; set download.interactions, or "
            "curate.split to cold or warm"
        )
    times, without = behaviour.times_of(raw)
    if not len(times):
        raise MufinError(
            "curate.split is time, but the interactions have no time; set "
            "download.interactions.time to the column that holds it, or curate.split to cold or "
            "warm"
        )
    valid, test = behaviour.cuts(times, s.test, s.valid)
    del times  # hundreds of megabytes where there are many interactions
    catalog = behaviour.resolved(raw, catalog, _scratch(catalog, "interactions")).without_ids()
    periods = {}
    gone = {
        "interactions without a time": without,
        "related ids, which have no time": facts.get("relations", 0),
    }
    limits = {"train": (-np.inf, valid), "valid": (valid, test), "test": (test, np.inf)}
    for name, period in limits.items():
        periods[name], left_out = _by_baskets(catalog, s, period)
        gone |= {f"{name}: {reason}": count for reason, count in left_out.items()}
    catalog = replace(catalog, relations=periods["train"], dropped=catalog.dropped | gone)
    if s.max_products and s.max_products < len(catalog):
        # By train alone, so that what is kept does not tell of later times.
        catalog, position = _subsampled(catalog, catalog.relations.lists, s)
        keep = np.flatnonzero(position >= 0)
        periods = {name: r.restricted(keep, position) for name, r in periods.items()}
    made = splits.time_split({name: r.lists for name, r in periods.items()})
    return catalog, _weighted(made, periods["train"]), "time"


def _by_baskets(
    catalog: Catalog, s: Curate, period: tuple[float, float] | None = None
) -> tuple[Relations, dict[str, int]]:
    """The relations by the interactions of a period, None for all, and what was left out."""
    batches = behaviour.batches_of(_scratch(catalog, "interactions"), period)
    scratch = _scratch(catalog, "baskets")
    threads = runtime.workers()
    return behaviour.relations_of(batches, len(catalog), s.interactions, scratch, threads)


def _scratch(catalog: Catalog, name: str) -> Path:
    """A path beside the cleaned rows, which goes when the stage ends."""
    return catalog.source.path.parent / name


def _weighted(made: splits.Splits, relations: Relations) -> splits.Splits:
    """The splits with the weights of the pairs of train, where these differ."""
    if relations.weights is None:
        return made
    train = made.rows["train"]
    source = train.product[train.labels.rows()]
    weights = relations.of_pairs(source, made.labels[train.labels.values])
    made.rows["train"] = replace(train, weights=weights)
    return made


def _check_two(catalog: Catalog) -> None:
    if catalog.first_label < 2:
        raise MufinError(
            "the catalog has only one product; give at least two, and check download.location"
        )


def _check_related(catalog: Catalog, facts: dict) -> None:
    if len(catalog.relations.lists.values):
        return
    if facts.get("interactions"):
        lost = _lost(catalog, behaviour.UNKNOWN)
        raise MufinError(
            f"the interactions relate no two products of the catalog ({lost} are of unknown "
            "products); look at download.interactions.item, or lower "
            "curate.interactions.min_support"
        )
    lost = _lost(catalog, UNKNOWN)
    if catalog.has_labels:
        raise MufinError(
            f"no product is related to a label ({lost} related ids are not of one); look at "
            "download.columns.related and whether its ids are those of download.labels.id"
        )
    raise MufinError(
        f"no product is related to another product of the catalog ({lost} related ids are not "
        "in it); look at download.columns.related and whether its ids are those of "
        "download.columns.id"
    )


def _lost(catalog: Catalog, reason: str) -> str:
    """`200, such as '00015', '00010',`, or the count alone."""
    count = f"{catalog.dropped.get(reason, 0)}"
    return f"{count}, such as {catalog.examples[reason]}," if reason in catalog.examples else count


def _released(
    raw: Path, facts: dict, catalog: Catalog, s: Curate
) -> tuple[Catalog, splits.Splits, str]:
    """The split that came with the data; only a subsample removes labels or datapoints from it."""
    if facts.get("interactions"):
        _say("the data come with a split of their own, so their interactions are not used")
    if facts.get("outfit_split"):
        return catalog, _outfit_split(raw, catalog, s), "released"
    labels = _released_labels(raw / "released/labels.parquet", catalog)
    train, test = (
        _released_rows(raw / f"released/{name}.parquet", catalog, len(labels))
        for name in ("train", "test")
    )
    if s.max_products and s.max_products < len(catalog):
        relations = _relations_of(train, test, labels, len(catalog))
        catalog, position = _subsampled(catalog, relations, s)
        labels, train, test = splits.restricted(labels, train, test, position)
    rng = np.random.default_rng([s.seed, 0])
    return catalog, splits.released_split(labels, train, test, s.valid, rng), "released"


def _outfit_split(raw: Path, catalog: Catalog, s: Curate) -> splits.Splits:
    """The split of outfits with a blank: valid and test may have labels that train has not."""
    if s.max_products:
        raise MufinError(
            f"curate.max_products is {s.max_products}, but of outfits with a blank all items are "
            "needed; set it to null"
        )
    labels, unseen = (
        _released_labels(raw / f"released/{name}.parquet", catalog) for name in ("labels", "unseen")
    )
    count = len(labels) + len(unseen)
    rows = {
        name: _released_rows(raw / f"released/{name}.parquet", catalog, count)
        for name in splits.NAMES
    }
    return splits.released_with_unseen(labels, unseen, rows)


def _released_labels(path: Path, catalog: Catalog) -> np.ndarray:
    """(L,) int64: the product of each label of a released file."""
    uids = pl.from_arrow(read_table(path, "released_labels"))["uid"]
    return _found(catalog, uids, path)


def _relations_of(train: Split, test: Split, labels: np.ndarray, num_products: int) -> Lists:
    """(num_products,) rows: the products that are labels of each product in the released split."""
    source = np.concatenate([rows.product[rows.labels.rows()] for rows in (train, test)])
    target = np.concatenate([labels[rows.labels.values] for rows in (train, test)])
    return clean_relations(source, target, num_products)[0]


def _released_rows(path: Path, catalog: Catalog, num_labels: int) -> Split:
    """One split of the released data with product numbers in place of ids."""
    table = read_table(path, "released_split")
    product = _found(catalog, pl.from_arrow(table.select(["uid"]))["uid"], path)
    lists = [Lists.of_column(table[name]) for name in ("labels", "excluded")]
    lists = [Lists(rows.offsets, rows.values.astype(np.int64)) for rows in lists]
    for rows in lists:
        if len(wrong := rows.values[(rows.values < 0) | (rows.values >= num_labels)]):
            raise MufinError(
                f"{path} names label {wrong[0]}, but there are only {num_labels} labels; "
                "run download again"
            )
    return Split(product, *lists)


def _found(catalog: Catalog, uids: pl.Series, path: Path) -> np.ndarray:
    """(n,) int64: the product of each id; raises MufinError if `path` names one that is missing."""
    products = catalog.find(uids)
    if len(lost := np.flatnonzero(products < 0)):
        raise MufinError(
            f"{path} row {lost[0] + 1} names the product {uids[int(lost[0])]!r}, which is not in "
            "products.parquet; run download again"
        )
    return products


def _subsampled(catalog: Catalog, relations: Lists, s: Curate) -> tuple[Catalog, np.ndarray]:
    """`curate.max_products` products with dense `relations`, and the new number of each product.

    A removed product has the number -1. Where labels are no products, all of these stay, and the
    products are drawn at random from those that have one.
    """
    rng = np.random.default_rng([s.seed, 1])
    if catalog.has_labels:
        some = np.flatnonzero(relations.lengths() > 0)
        keep = np.sort(rng.permutation(some)[: s.max_products])
        keep = np.concatenate([keep, np.arange(catalog.first_label, len(catalog))])
    else:
        keep = dense_subsample(relations, s.max_products, rng)
    smaller, position = catalog.only(keep)
    outside = catalog.first_label - smaller.first_label
    dropped = catalog.dropped | {"products outside the subsample": outside}
    return replace(smaller, dropped=dropped), position


def _check_not_empty(catalog: Catalog, made: splits.Splits, kind: str, s: Curate) -> None:
    for name, part in (("train", 1.0), ("test", s.test)):
        if not part or len(made.rows[name].product):
            continue
        if kind == "cold" and splits.mutual(catalog.relations.lists):
            raise splits.mutual_pairs(name)
        others = "provide more products with relations"
        if kind == "time":
            others = f"lower curate.interactions.min_support ({s.interactions.min_support:g})"
        raise MufinError(
            f"no {name} datapoint is left with a label after the split (curate.test "
            f"{s.test:g}, curate.valid {s.valid:g}); change these, or {others}"
        )


# Writing


def _write(catalog: Catalog, made: splits.Splits, kind: str, raw: Path, folder: Path) -> None:
    """Write data/curated: products, labels, splits, and what belongs to unseen labels."""
    products = folder / "products.parquet"
    _write_products(catalog, products)
    write_attributes(raw, catalog.rows, products, folder / NAME)
    if catalog.source.further is not None:
        write_texts(catalog.source, catalog.rows, products, folder / TEXTS)
    for sub, labels, rows in (
        ("", made.labels, made.rows),
        ("unseen/", made.unseen, made.unseen_rows),
    ):
        write_table({"product": labels.astype(np.int32)}, "labels", folder / f"{sub}labels.parquet")
        for name, split in rows.items():
            write_split(split, folder / f"{sub}{name}.parquet")
    write_json({"split": kind}, folder / "split.json")


def _write_products(catalog: Catalog, path: Path) -> None:
    """Copy the rows of the products from the temporary file of all cleaned rows."""
    chosen, start = np.zeros(len(catalog.source.tokens), bool), 0
    chosen[catalog.rows] = True
    with pq.ParquetWriter(path, SCHEMAS["products"], compression="zstd") as writer:
        names = SCHEMAS["products"].names
        for batch in temporary_batches(catalog.source.path, "products", names):
            writer.write_batch(batch.filter(pa.array(chosen[start : start + len(batch)])))
            start += len(batch)


def _statistics(catalog: Catalog, made: splits.Splits) -> dict:
    """The figures of Table 1 of the paper for this catalog, and counts of what is missing.

    N, N' and L are `train`, `test` and `labels`; the means are over the datapoints of all splits.
    """
    every = np.concatenate([r.product for r in made.rows.values()])
    rows = catalog.rows[: catalog.first_label]
    tokens, images = catalog.source.tokens[rows], catalog.source.images[rows]
    pairs = sum(len(r.labels.values) for r in made.rows.values())
    train_pairs = len(made.rows["train"].labels.values)
    neither = ~catalog.source.described()[rows] & (images == 0)
    counts = {"products": catalog.first_label} | {n: len(r.product) for n, r in made.rows.items()}
    counts |= text_statistics(catalog.source, rows, every)
    return counts | {
        "labels": len(made.labels),
        "unseen_labels": len(made.unseen),
        "labels_per_datapoint": round(pairs / len(every), 3),
        "train_datapoints_per_label": round(train_pairs / max(len(made.labels), 1), 3),
        "tokens_per_datapoint": round(float(tokens[every].mean()), 3),
        "images_per_datapoint": round(float(images[every].mean()), 3),
        "filter_pairs": sum(len(r.excluded.values) for r in made.rows.values()),
        "products_without_title": int((tokens == 0).sum()),
        "products_without_image": int((images == 0).sum()),
        "products_without_either": int(neither.sum()),
    }


def _say(text: str) -> None:
    print(sentence(f"curate: {text}"), file=sys.stderr, flush=True)


if __name__ == "__main__":
    runtime.run(main)
