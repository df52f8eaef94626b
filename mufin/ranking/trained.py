"""The predictor of a trained pipeline, from the artifacts of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mufin.artifacts.contents import check_made_from
from mufin.artifacts.curated import read_split
from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.assembly import load_members
from mufin.ranking.label_index import load_index
from mufin.ranking.predictor import Predictor
from mufin.ranking.train_pairs import TrainPairs


def load_predictor(
    home: Path, modalities: Sequence[str], device: torch.device, precision: torch.dtype
) -> Predictor:
    """The predictor that `dvc repro` trained in the folder `home`.

    Raises ArtifactError if a file is not as it was written, or if networks, index, descriptors and
    products are of different runs.
    """
    precomputed, index = Precomputed(home / "data/precomputed"), home / "models/index"
    members = load_members(home / "models/finetune", precomputed, whole=False)
    check_made_from(precomputed.folder, "data/curated", home / "data/curated")
    for name in ("models/finetune", "data/curated"):
        check_made_from(index, name, home / name)
    labels, retrievers = load_index(index, device), None
    if labels.found is not None:
        check_made_from(index, "models/pretrain", home / "models/pretrain")
        found_by = load_members(home / "models/pretrain", precomputed, whole=False)
        retrievers = [member.network for member in found_by]
    return Predictor(
        [member.network for member in members],
        DescriptorStore(precomputed.folder, list(modalities), device),
        labels,
        device,
        precision,
        TrainPairs(read_split(home / "data/curated/train.parquet"), len(labels)),
        retrievers,
    )
