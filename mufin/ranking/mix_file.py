"""`models/mix.json`: the weights that prediction uses, and the index for which they were chosen."""

from __future__ import annotations

from pathlib import Path

from mufin.artifacts.contents import check_id, contents_of
from mufin.artifacts.files import read_sealed_json, write_sealed_json
from mufin.errors import ArtifactError
from mufin.ranking.mix import Mix

INDEX = "models/index"


def save_mix(mix: Mix, path: Path, index: Path) -> None:
    """Publishes the mix for the index in the folder `index`."""
    made_from = {INDEX: contents_of(index).id}
    write_sealed_json(mix.weights() | {"made_from": made_from}, path)


def load_mix(path: Path, index: Path) -> Mix:
    """The mix that `save_mix` wrote for the index in the folder `index`.

    Raises ArtifactError if the file is missing or damaged, or belongs to another index.
    """
    said = read_sealed_json(path)
    made_from = said.pop("made_from", {})
    try:
        mix = Mix(**said)
    except TypeError:
        raise ArtifactError(f"{path} is of another version; run `dvc repro evaluate`") from None
    check_id(path, made_from, INDEX, index)
    return mix
