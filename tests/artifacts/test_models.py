"""Networks and embeddings on disk: what is written is read, and a broken file is named."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from mufin.artifacts.embeddings import PretrainEmbeddings, read_embeddings, write_embeddings
from mufin.artifacts.models import read_members, write_members
from mufin.errors import ArtifactError
from tests.support.artifacts import sealed


def member(number: int) -> tuple[dict, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(number)
    weights = {"a.weight": torch.randn(3, 2, generator=generator).T, "a.count": torch.tensor(7)}
    return {"dim": number, "modalities": ["text"]}, weights


def test_members_come_back_in_their_order(tmp_path):
    members = [member(number) for number in range(11)]  # member-10 is after member-9
    write_members(members, tmp_path / "models")
    for (facts, weights), (back, tensors) in zip(
        members, read_members(tmp_path / "models"), strict=True
    ):
        assert back == facts and tensors.keys() == weights.keys()
        assert all(torch.equal(tensors[name], weights[name]) for name in weights)
    assert {path.name for path in (tmp_path / "models/member-3").iterdir()} == {
        "model.json",
        "model.safetensors",
    }


def test_all_members_are_published_or_none(tmp_path):
    write_members([member(0), member(1)], tmp_path / "models")

    def failing():
        yield member(2)
        raise ValueError

    with pytest.raises(ValueError):
        write_members(failing(), tmp_path / "models")
    assert [facts["dim"] for facts, _ in read_members(tmp_path / "models")] == [0, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


@pytest.mark.parametrize("broken", [b"", b"no safetensors at all"])
def test_broken_or_missing_weights_are_one_sentence(tmp_path, broken):
    write_members([member(0)], tmp_path)
    path = tmp_path / "member-0/model.safetensors"
    path.write_bytes(broken)
    with pytest.raises(ArtifactError, match="model.safetensors is damaged: it has"):
        read_members(tmp_path)
    sealed(tmp_path)  # as a hostile writer would
    with pytest.raises(ArtifactError, match="model.safetensors cannot be read .*`dvc repro`") as e:
        read_members(tmp_path)
    assert "\n" not in str(e.value)


def test_a_folder_without_members_names_the_remedy(tmp_path):
    with pytest.raises(ArtifactError, match="models is missing; run `dvc repro`"):
        read_members(tmp_path / "models")


def test_embeddings_come_back_as_arrays(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "made/pretrain.safetensors"
    arrays = {field.name: rng.normal(size=(4, 3)) for field in fields(PretrainEmbeddings)}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    arrays["label_offsets"] = np.array([0, 1, 4])
    arrays["centroids"] = arrays["centroids"].T  # not in the order of memory
    with pytest.raises(ArtifactError, match="pretrain.safetensors is missing; run `dvc repro"):
        read_embeddings(path)
    write_embeddings(PretrainEmbeddings(**arrays), path)
    back = read_embeddings(path)
    for name, array in arrays.items():
        found = getattr(back, name)
        assert found.dtype == array.dtype and np.array_equal(found, array), name
    for split in ("train", "valid", "test"):
        assert np.array_equal(back.datapoints(split), arrays[split])
