"""Memory-mapped tensors: equal to those that were written; broken files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from mufin.artifacts.mapped import MappedTensors

TENSORS = {
    "rows": np.arange(12, dtype=np.float32).reshape(3, 4),
    "ids": np.arange(5),
    "modality": np.array([0, 1, -1], np.int8),
    "flag": np.array([True, False]),
    "half": np.array([0.5, 2], np.float16),
    "none": np.zeros((0, 7), np.float32),
}


def with_header(path: Path, header: dict, body: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def test_mapped_tensors_are_those_that_were_saved(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors", {"said": "by a test"})
    found = MappedTensors(tmp_path / "a.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and np.array_equal(found[name], tensor), name


def test_what_was_released_is_read_again(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    found = MappedTensors(tmp_path / "a.safetensors")
    before = found["rows"].copy()
    found.release()
    assert np.array_equal(found["rows"], before)


def test_mapped_tensors_cannot_be_changed(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="read-only"):
        MappedTensors(tmp_path / "a.safetensors")["rows"][0] = 1


@pytest.mark.parametrize("pad", range(8))
def test_a_tensor_at_any_byte_is_read(pad, tmp_path):
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    values = np.array([1.5, -2], np.float32)
    path = with_header(tmp_path / "a", header | {"__metadata__": {"": "x" * pad}}, values.tobytes())
    assert MappedTensors(path)["a"].tolist() == [1.5, -2]


@pytest.mark.parametrize(
    "said",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4000]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "X", "shape": [2], "data_offsets": [0, 8]},
    ],
)
def test_a_header_that_lies_is_refused(said, tmp_path):
    path = with_header(tmp_path / "a", {"a": said}, bytes(8))
    with pytest.raises((SafetensorError, ValueError, KeyError)):
        MappedTensors(path)


@pytest.mark.parametrize("size", [0, 4, 8, 60])
def test_a_file_that_was_cut_is_refused(size, tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "cut").write_bytes(content[:size])
    with pytest.raises((SafetensorError, ValueError, OSError)):
        MappedTensors(tmp_path / "cut")
