"""The rows of the comparison: what each is called, which group it stands in, and where its predictions lie.

`data/compare/<name>@<seed>/` is what one variant or rival left: `test.parquet` (predictions), `facts.json`, and for MUFIN
itself `methods/<row>.parquet`, rows that need no training of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from mufin.artifacts.files import read_json
from mufin.errors import MufinError

ROWS = {  # name: (group, the paper's name), in the order of the table
    "mufin": ("MUFIN", "MUFIN"),
    "mufin_fixed": ("MUFIN", "MUFIN, the paper's score"),
    "mufin_chosen": ("MUFIN", "MUFIN, mix chosen on valid"),
    "mufin_rare_and_popular": ("MUFIN", "MUFIN, rare and popular labels scored differently"),
    "triplet": ("Sampling", "MUFIN, Module I by triplets with hard +ve, -ve"),
    "no_hard_positives": ("Sampling", "MUFIN-no +ve"),
    "no_hard_negatives": ("Sampling", "MUFIN-no +ve, -ve"),
    "module_1_bag": ("Retrieval", "MUFIN-P-I-bag"),
    "module_1_vec": ("Retrieval", "MUFIN-P-I-vec"),
    "concat": ("Representation", "MUFIN-ConCat"),
    "no_a_s": ("Representation", "MUFIN-no A_S"),
    "no_a_c": ("Ranker", "MUFIN-no A_C"),
    "alpha_1": ("Ranker", "MUFIN (alpha = 1)"),
    "text_only": ("Modality", "MUFIN, text only"),
    "image_only": ("Modality", "MUFIN, image only"),
    "resnet18": ("Encoders", "MUFIN (ResNet-18)"),
    "clip": ("Encoders", "CLIP + MUFIN"),
    "visualbert": ("Encoders", "VisualBERT + MUFIN"),
    "datapoint_batches": ("Batching", "MUFIN, datapoint-first batches"),
    "cluster_batches": ("Batching", "MUFIN, batches of clusters"),
    "siamesexml": ("Rivals, titles", "SiameseXML"),
    "eclare": ("Rivals, titles", "ECLARE"),
    "attentionxml": ("Rivals, titles", "AttentionXML"),
    "bonsai": ("Rivals, titles", "Bonsai"),
    "mach": ("Rivals, titles", "MACH"),
    "xt": ("Rivals, titles", "XT (napkinXC's label tree)"),
    "ridge": ("First tries", "ridge, frozen encoders + TF-IDF"),
    "frozen_datapoints": ("First tries", "20 nearest datapoints, frozen encoders"),
    "tfidf_datapoints": ("First tries", "20 nearest datapoints, TF-IDF"),
    "tfidf_labels": ("First tries", "TF-IDF to the labels"),
    "popular": ("First tries", "most popular"),
}
OF_MUFIN = {  # rows that evaluate makes beside what it predicts with: its own names for them
    "mufin_fixed": "mufin",
    "mufin_chosen": "mufin_chosen",
    "mufin_rare_and_popular": "mufin_rare_and_popular",
    "module_1_bag": "module_1_bag",
    "module_1_vec": "module_1_vec",
}
PREDICTS = {
    "fixed": "mufin_fixed",
    "chosen": "mufin_chosen",
}  # evaluate.mix: the row that is `mufin` itself
LEARNT = ("siamesexml", "eclare", "attentionxml", "bonsai", "mach", "xt")
PLAIN = (
    "ridge",
    "frozen_datapoints",
    "tfidf_datapoints",
    "tfidf_labels",
    "popular",
)  # the same for every seed


@dataclass(frozen=True, slots=True)
class Result:
    """One row at one seed."""

    row: str
    seed: int
    predictions: Path  # test, schema `predictions`
    facts: dict  # `failed`: a sentence where there are none


@dataclass(frozen=True, slots=True)
class Wanted:
    """`compare/variants.yaml`: what is to be compared."""

    seeds: list[int]
    variants: dict[
        str, dict[str, object]
    ]  # name -> {dotted name of a setting: value} in which it differs from params.yaml
    rivals: list[str]  # of LEARNT
    first_tries: list[str]  # of PLAIN

    @property
    def rows(self) -> list[str]:
        """The table's rows, known ones in their order, then the variants that someone added."""
        known = {*self.variants, *OF_MUFIN, *self.rivals, *self.first_tries}
        return [n for n in ROWS if n in known] + [n for n in self.variants if n not in ROWS]


def read_wanted(path: Path) -> Wanted:
    """Raises MufinError where the file has another form."""
    try:
        from ruamel.yaml import YAML

        content = YAML(typ="safe", pure=True).load(path.read_text())
    except FileNotFoundError:
        raise MufinError(f"{path} is missing; `mufin use <profile>` writes one") from None
    parts = [f.name for f in fields(Wanted)]
    if not isinstance(content, dict) or set(content) != set(parts):
        raise MufinError(f"{path} must have {', '.join(parts)} and nothing else")
    seeds, variants = content["seeds"], content["variants"]
    if not (
        isinstance(seeds, list) and seeds and all(isinstance(s, int) and s >= 0 for s in seeds)
    ):
        raise MufinError(
            f"{path}: seeds is {seeds!r}; it must be a list of whole numbers of at least 0"
        )
    named = isinstance(variants, dict) and all(isinstance(v, dict) for v in variants.values())
    if not named or "mufin" not in variants:
        raise MufinError(
            f"{path}: variants must be names, `mufin` among them, with the settings of each"
        )
    for part, known in (("rivals", LEARNT), ("first_tries", PLAIN)):
        if not isinstance(content[part], list) or set(content[part]) - set(known):
            raise MufinError(
                f"{path}: {part} is {content[part]!r}; it must be a list of {', '.join(known)}"
            )
    return Wanted(**content)


def title(row: str) -> tuple[str, str]:
    """(group, name) of a row; a variant that someone added is called by its own name."""
    return ROWS.get(row, ("Variants", row))


def results(folder: Path, wanted: Wanted) -> list[Result]:
    """What lies in `data/compare` of the wanted rows and seeds; raises MufinError where one was not run."""
    out = []
    for name in wanted.rows:
        owner = "mufin" if name in OF_MUFIN else name
        for seed in wanted.seeds[:1] if name in PLAIN else wanted.seeds:
            place = folder / f"{owner}@{seed}"
            facts = read_json(place / "facts.json")
            file = place / (f"methods/{name}.parquet" if name in OF_MUFIN else "test.parquet")
            if "failed" in facts or file.exists():
                out.append(Result(name, seed, file, facts))
    return out
