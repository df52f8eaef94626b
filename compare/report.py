"""The study as one page, metrics/report.html: table, breakdowns, examples, the paper's claims.

python -m compare.report
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from compare.rows import BASELINES, REFERENCE, place
from compare.study import FOLDER
from compare.table import BOLD, METRICS, TIME
from mufin import devices, runtime
from mufin.artifacts.curated import Curated, Split, read_curated
from mufin.artifacts.files import read_json, write_csv
from mufin.artifacts.publication import publish
from mufin.artifacts.tables import read_ranking, read_table
from mufin.errors import MufinError
from mufin.params import Params, load_params
from mufin.profiles import profile_names, read_profile
from mufin.ranking.predictor import Predictor
from mufin.ranking.trained import load_predictor
from mufin.reporting import claims, close_ups, provenance, sections
from mufin.reporting.catalog import Catalog
from mufin.reporting.page import render
from mufin.reporting.provenance import Provenance
from mufin.reporting.sections import Method

# Rows of the breakdowns, which have room for a few: the first ones that there are.
BY_CATEGORY = ("mufin", "alpha_1", BASELINES, REFERENCE, "text_only", "image_only")
BY_GROUP = ("mufin", "text_only", "image_only", BASELINES, REFERENCE)
AS_EXAMPLES = ("mufin", "text_only")
PLOTS = "compare/plots"  # below the study's own DVC project, which reads no other files
CURVES = {"Module I (pretrain)": "pretrain.csv", "Module IV (finetune)": "finetune.csv"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the page is made from."""

    home: Path
    params: Params
    data: Curated
    products: pa.Table
    table: list[dict]  # the rows of metrics/compare.json
    bold: dict[str, str | None]  # column: the row whose figure is in bold
    methods: list[Method]  # those rows that have predictions
    predictor: Predictor  # MUFIN of the main pipeline

    @property
    def test(self) -> Split:
        return self.data.splits["test"]

    @property
    def baselines(self) -> list[str]:
        return [row["row"] for row in self.table if row["group"] == BASELINES]

    def first(self, names: tuple[str, ...], most: int) -> list[Method]:
        """At most `most` methods, in the order of `names`: rows, or groups of the table."""
        by_name, out = {method.name: method for method in self.methods}, []
        for name in names:
            rows = [row["row"] for row in self.table if name in (row["row"], row["group"])]
            out += [by_name[row] for row in rows if row in by_name]
        return out[:most]


def main(home: runtime.Home = Path(".")):
    """Write metrics/report.html, and the CSV files that `dvc plots` draws."""
    inputs = _inputs(home)
    with runtime.measured("report", home) as report:
        context = _context(inputs)
        with publish(home / "metrics/report.html") as scratch:
            scratch.write_text(render(context), encoding="utf-8")
        _write_plots(inputs, context)
        report.items = len(inputs.test)
        report.facts = {
            "attention": close_ups.figures(context["attention"]),
            "classifiers": {name: context["classifiers"][name] for name in ("share", "chance")},
            "claims": {claim.text: claim.verdict for claim in context["claims"]},
        }
        report.costs["bytes"] = (home / "metrics/report.html").stat().st_size


def _inputs(home: Path) -> Inputs:
    """Raises MufinError where the study was not run, or on another test split."""
    compared = home / "metrics/compare.json"
    if not compared.exists():
        raise MufinError(
            f"{compared} is missing, so there is nothing to report on; run `make compare` first"
        )
    params, data = load_params(home / "params.yaml"), read_curated(home / "data/curated")
    products = read_table(home / "data/curated/products.parquet", "products")
    study = read_json(compared)
    methods = _methods(study["rows"], home / FOLDER, data, params.seed)
    return Inputs(
        home=home,
        params=params,
        data=data,
        products=products,
        table=study["rows"],
        bold=study["bold"],
        methods=methods,
        predictor=load_predictor(
            home, params.encoder.modalities, devices.device(), devices.precision()
        ),
    )


def _methods(table: list[dict], folder: Path, data: Curated, seed: int) -> list[Method]:
    """The rows that have predictions; raises MufinError where these are not of this test split.

    `seed`: the one whose predictions are shown as examples, where a row has it.
    """
    test, frequency, out = data.splits["test"], _frequency(data), []
    for row in table:
        paths = {s: p for s in row["seeds"] if (p := place(folder, row["row"], s)).exists()}
        predictions = [read_ranking(path) for path in paths.values()]
        for path, found in zip(paths.values(), predictions):
            if len(found) != len(test):
                raise MufinError(
                    f"{path} has {len(found)} predictions for {len(test)} test datapoints, so it "
                    "is of another split; run `make compare` again"
                )
        if predictions:
            shown = list(paths).index(seed) if seed in paths else 0
            out.append(Method.of(row["row"], row["title"], predictions, shown, test, frequency))
    return out


def _frequency(data: Curated) -> np.ndarray:
    """(L,) train datapoints of each label."""
    return np.bincount(data.train.labels.values, minlength=len(data.labels))


def _context(inputs: Inputs) -> dict:
    """What the page's template reads, by section."""
    context = {
        "provenance": _provenance(inputs.home, inputs.params),
        "facts": sections.facts(inputs.data, inputs.products) | _facts(inputs),
        "table": sections.comparison(inputs.table, (*METRICS, TIME), inputs.bold),
        "bold_rule": BOLD,
        "curves": sections.curves({t: inputs.home / "metrics" / n for t, n in CURVES.items()}),
    }
    context |= _breakdowns(inputs) | _close_ups(inputs)
    context["claims"] = _claims(inputs, context)
    context["verdicts"] = claims.tally(context["claims"])
    return context


def _provenance(home: Path, params: Params) -> Provenance:
    profiles = {name: asdict(read_profile(name)) for name in profile_names()}
    return Provenance(
        catalog=provenance.catalog(params.download.source, params.download.location),
        date=provenance.now(),
        commit=provenance.commit(home),
        profile=provenance.profile(asdict(params), profiles),
    )


def _facts(inputs: Inputs) -> dict:
    """What was run, as far as settings and the table tell."""
    ran = [row for row in inputs.table if row["metrics"]]
    return {
        "split": read_json(inputs.home / "data/curated/split.json")["split"],
        "source": inputs.params.download.source,
        "tail": inputs.params.evaluate.tail,
        "seeds": sorted({seed for row in inputs.table for seed in row["seeds"]}),
        "rows": len(ran),
        "failed": len(inputs.table) - len(ran),
    }


def _breakdowns(inputs: Inputs) -> dict:
    """The sections that break figures down: by category, popularity, pictures and titles."""
    test, products, methods = inputs.test, inputs.products, inputs.methods
    category = sections.datapoint_categories(test, products)
    pictures = sections.picture_counts(test, products, inputs.predictor.store)
    shown = inputs.first(BY_GROUP, 4)
    return {
        "categories": sections.by_category(methods, inputs.first(BY_CATEGORY, 6), category),
        "bins": sections.by_popularity(methods, test, _frequency(inputs.data)),
        "pictures": sections.by_pictures(shown, pictures),
        "modalities": sections.by_modality(shown, sections.have_title(test, products), pictures),
    }


def _close_ups(inputs: Inputs) -> dict:
    """The sections that show single products and labels."""
    store = inputs.home / "data/raw/images"
    catalog = Catalog(inputs.products, inputs.data.labels, inputs.test, store)
    examples = inputs.first(AS_EXAMPLES, len(AS_EXAMPLES))
    found, titles = {m.name: m.first for m in examples}, {m.name: m.title for m in examples}
    predictor, shortlist = inputs.predictor, inputs.params.evaluate.shortlist
    return {
        "attention": close_ups.cross_attention(predictor, shortlist, catalog, found.get("mufin")),
        "classifiers": close_ups.classifiers(predictor, catalog),
        "predictions": close_ups.predicted(catalog, found, titles),
    }


def _claims(inputs: Inputs, context: dict) -> list[claims.Claim]:
    bins, categories, classifiers = (context[n] for n in ("bins", "categories", "classifiers"))
    by_category = categories["all"] if categories else {}
    return claims.of_study(
        inputs.table,
        inputs.baselines,
        {name: means.tolist() for name, means in bins["all"].items()} if bins else {},
        {name: [value for _, _, value in lines] for name, lines in by_category.items()},
        context["attention"]["gains"],
        (classifiers["share"], classifiers["chance"]),
    )


def _write_plots(inputs: Inputs, context: dict) -> None:
    """The CSV files of `dvc plots`; one without rows has its header alone."""
    bins, categories = [], []
    for method in inputs.methods:
        if context["bins"]:
            parts = enumerate(context["bins"]["all"][method.name], 1)
            bins += [(method.title, number, round(float(v), 4)) for number, v in parts]
        if context["categories"]:
            lines = context["categories"]["all"][method.name]
            categories += [(method.title, n, count, round(float(v), 4)) for n, count, v in lines]
    points, folder = context["classifiers"]["points"], inputs.home / PLOTS
    write_csv(("row", "bin", "R@10"), bins, folder / "popularity.csv")
    write_csv(("row", "category", "datapoints", "P@5"), categories, folder / "categories.csv")
    write_csv(("x", "y", "category"), points, folder / "classifiers.csv")


if __name__ == "__main__":
    runtime.run(main)
