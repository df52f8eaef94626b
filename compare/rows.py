"""The rows of the table: their order, titles and groups, and the results of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compare.study import OF_MUFIN, Study
from mufin.artifacts.files import read_json

MUFIN = {  # name: (group, the paper's name) of MUFIN and its variants, in the order of the table
    "mufin": ("MUFIN", "MUFIN"),
    "mufin_fixed": ("MUFIN", "MUFIN, the paper's score"),
    "mufin_chosen": ("MUFIN", "MUFIN, mix chosen on valid"),
    "mufin_without_ridge": ("MUFIN", "MUFIN, mix chosen without the title ridge"),
    "mufin_without_votes": ("MUFIN", "MUFIN, mix chosen without votes of train datapoints"),
    "mufin_without_pairs": ("MUFIN", "MUFIN, mix chosen without pairs of train"),
    "mufin_rare_and_popular": ("MUFIN", "MUFIN, rare and popular labels scored differently"),
    "no_self_supervision": ("Recipe", "MUFIN, E_V as drawn at random"),
    "no_direction": ("Recipe", "MUFIN, classifiers of the paper (z and eta by alpha)"),
    "bigrams": ("Recipe", "MUFIN, pairs of title words too"),
    "no_word_dropout": ("Recipe", "MUFIN, no dropout on title words"),
    "no_norm": ("Recipe", "MUFIN, descriptors not normalised"),
    "no_decay": ("Recipe", "MUFIN, no weight decay of title words"),
    "sums": ("Recipe", "MUFIN, a bag is the sum of all its descriptors"),
    "with_a_s": ("Recipe", "MUFIN with A_S"),
    "with_a_c": ("Recipe", "MUFIN with A_C"),
    "attention": ("Recipe", "MUFIN with A_S and A_C, descriptors not normalised"),
    "prime": ("Recipe", "MUFIN, classifiers of z, eta and centroid (PRIME)"),
    "e_t": ("Recipe", "MUFIN, E_T in place of a vector per title word"),
    "early": ("Recipe", "MUFIN, E_T, early fusion"),
    "both": ("Recipe", "MUFIN, E_T, early fusion and pictures in the bag"),
    "published": ("MUFIN as published", "MUFIN as published, on the same descriptors"),
    "soft_triplet": ("Sampling", "MUFIN, Module I by soft triplets with hard +ve, -ve"),
    "no_hard_positives": ("Sampling", "MUFIN-no +ve"),
    "no_hard_negatives": ("Sampling", "MUFIN-no +ve, -ve"),
    "module_1_bag": ("Retrieval", "MUFIN-P-I-bag"),
    "module_1_vec": ("Retrieval", "MUFIN-P-I-vec"),
    "concat": ("Representation", "MUFIN-ConCat"),
    "no_a_s": ("Representation", "MUFIN-no A_S"),
    "no_a_c": ("Ranker", "MUFIN-no A_C"),
    "alpha_1": ("Ranker", "MUFIN (alpha = 1)"),
    "alpha_1_at_prediction": ("Ranker", "MUFIN, alpha = 1 at prediction alone"),
    "text_only": ("Modality", "MUFIN, text only"),
    "image_only": ("Modality", "MUFIN, image only"),
    "resnet18": ("Encoders", "MUFIN (ResNet-18)"),
    "clip": ("Encoders", "CLIP + MUFIN"),
    "visualbert": ("Encoders", "VisualBERT + MUFIN"),
    "datapoint_batches": ("Batching", "MUFIN, datapoint-first batches"),
    "cluster_batches": ("Batching", "MUFIN, batches of clusters"),
}
OWN, BASELINES, REFERENCE = "Variants", "Baselines", "Reference rows"  # the other groups
CEILINGS = "Ceilings"


def order(study: Study) -> list[str]:
    """All rows: the paper's, a user's variants, baselines, reference rows, ceilings."""
    known = {*study.variants, *OF_MUFIN}
    own = [name for name in study.variants if name not in MUFIN]
    others = [*study.baselines, *study.reference, *study.ceilings]
    return [*(name for name in MUFIN if name in known), *own, *others]


def title(study: Study, row: str) -> tuple[str, str]:
    """(group, title) of a row; a variant that is not the paper's is called by its own name."""
    if row in study.baselines:
        return BASELINES, study.baselines[row]
    if row in study.reference:
        return REFERENCE, study.reference[row]
    if row in study.ceilings:
        return CEILINGS, study.ceilings[row]
    return MUFIN.get(row, (OWN, row))


@dataclass(frozen=True, slots=True)
class Result:
    """One row at one seed."""

    row: str
    seed: int
    predictions: Path  # on test, schema `predictions`
    facts: dict  # `failed`: a sentence where there are no predictions


def place(folder: Path, row: str, seed: int) -> Path:
    """The predictions of a row at a seed, below `folder` (compare/results)."""
    if row in OF_MUFIN:
        return folder / f"mufin@{seed}/methods/{row}.parquet"
    return folder / f"{row}@{seed}/test.parquet"


def results(folder: Path, study: Study) -> list[Result]:
    """The results of all rows and seeds. Raises MufinError where one was not run.

    A row of `OF_MUFIN` that this profile does not have (no title ridge, for one) is left out.
    """
    out = []
    for row in order(study):
        owner = "mufin" if row in OF_MUFIN else row
        for seed in study.seeds_of(row):
            facts = read_json(folder / f"{owner}@{seed}/facts.json")
            file = place(folder, row, seed)
            if "failed" in facts or file.exists():
                out.append(Result(row, seed, file, facts))
    return out
