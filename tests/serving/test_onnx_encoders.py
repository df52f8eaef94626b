"""Encoders in ONNX Runtime: equal to torch's, kept in the cache folder, never trusted blindly."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mufin.artifacts.precomputed import Precomputed
from mufin.nn.encoder import Encoder
from mufin.serving import onnx_encoders
from mufin.serving.new_products import NewProducts
from mufin.serving.onnx_encoders import OnnxEncoder
from mufin.serving.query import NewProduct
from tests.support.stages import inside, run_stages

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

CPU = torch.device("cpu")
NEW = [NewProduct("A red lamp, small"), NewProduct(""), NewProduct("Rug")]


@pytest.fixture(scope="module")
def model(request, tmp_path_factory):
    """data/precomputed and its settings, of these modalities and of encoders whose last blocks
    train; by default a frozen encoder of titles.
    """
    blocks, modalities = getattr(request, "param", (0, ["text"]))
    folder = tmp_path_factory.mktemp("onnx")
    changes = {
        "encoder.modalities": modalities,
        "encoder.image.trainable_blocks": blocks,
        "encoder.text.trainable_layers": blocks,
    }
    with inside(folder, **changes) as home:
        run_stages(home, last="precompute")
        from mufin.params import load_params

        return Precomputed(home / "data/precomputed"), load_params(home / "params.yaml").encoder


def make_here(command: list[str], **_) -> subprocess.CompletedProcess:
    """Exports in this process: to import torch in one of its own takes seconds."""
    folder, modality, path, close = command[-4:]
    try:
        onnx_encoders._make(Path(folder), modality, Path(path), float(close))
    except ValueError as error:
        return subprocess.CompletedProcess(command, 1, "", f"ValueError: {error}")
    return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(onnx_encoders.subprocess, "run", make_here)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The cache folder after a first start, which exports titles alone in a process of its own."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        if model[1].modalities != ["text"]:
            patch.setattr(onnx_encoders.subprocess, "run", make_here)
        made = NewProducts(*model, CPU, torch.float32, fast=True)
    assert all(isinstance(one, OnnxEncoder) for one in encoders(made))
    return folder / "mufin" / "encoders"


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """A cache folder that is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mufin" / "encoders"


@pytest.fixture
def cache(empty, exported):
    """A cache folder as a first start leaves it."""
    shutil.copytree(exported, empty)
    return empty


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def encoders(made: NewProducts) -> list:
    """Those that there are."""
    return [encoder for encoder in (made.text, made.image) if encoder is not None]


def arrays(made: NewProducts) -> list[np.ndarray]:
    store = made.store([*NEW, NewProduct("Rug, blue", (picture(1), picture(2)))])
    batch = store.batch(np.arange(4))
    return [rows.float().numpy() for rows in (batch.text, batch.images) if rows is not None]


def of_torch(model, monkeypatch) -> list[np.ndarray]:
    with monkeypatch.context() as patch:
        patch.setattr(onnx_encoders, "_installed", lambda: False)
        made = NewProducts(*model, CPU, torch.float32, fast=True)
    assert all(isinstance(one, Encoder) for one in encoders(made))
    return arrays(made)


@pytest.mark.parametrize(
    "model",
    [(1, ["text", "image"]), (0, ["image"])],
    indirect=True,
    scope="module",
    ids=["trains", "frozen"],
)
def test_onnx_gives_what_torch_gives(model, cache, monkeypatch):
    wanted = of_torch(model, monkeypatch)
    made = NewProducts(*model, CPU, torch.float32, fast=True)
    assert all(isinstance(one, OnnxEncoder) for one in encoders(made))
    for ours, theirs in zip(arrays(made), wanted):
        assert ours.shape == theirs.shape
        # activations are kept as float16
        assert np.abs(ours - theirs).max() <= 2e-3 * np.abs(theirs).max()
    assert len(list(cache.glob("*.onnx"))) == len(wanted)


def test_the_cache_needs_neither_timm_nor_transformers(model, cache, monkeypatch):
    monkeypatch.setattr(onnx_encoders, "load_encoder", lambda folder: pytest.fail("loaded"))
    NewProducts(*model, CPU, torch.float32, fast=True)


@pytest.mark.parametrize("harm", ["cut", "other outputs"])
def test_a_damaged_cache_is_made_anew(model, harm, cache, monkeypatch, in_this_process):
    wanted = of_torch(model, monkeypatch)
    paths = sorted(cache.glob("*.onnx"))
    if harm == "cut":
        for path in paths:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        for path in paths:
            with np.load(path.with_suffix(".npz")) as saved:
                content = dict(saved)
            content["out/0"] += 1
            np.savez(path.with_suffix(".npz"), **content)
    made = NewProducts(*model, CPU, torch.float32, fast=True)
    assert all(isinstance(one, OnnxEncoder) for one in encoders(made))
    for ours, theirs in zip(arrays(made), wanted):
        assert np.abs(ours - theirs).max() <= 2e-3 * np.abs(theirs).max()


def test_an_export_that_differs_is_not_used(model, monkeypatch, empty, capsys, in_this_process):
    monkeypatch.setattr(onnx_encoders, "CLOSE", -1.0)
    made = NewProducts(*model, CPU, torch.float32, fast=True)
    assert isinstance(made.text, Encoder)
    said = capsys.readouterr().err
    assert "text: torch, not ONNX Runtime (" in said and "its results differ by" in said
    assert not list(empty.iterdir())


def test_without_a_cache_folder_torch_encodes(model, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert isinstance(NewProducts(*model, CPU, torch.float32, fast=True).text, Encoder)


def test_only_the_last_used_encoders_are_kept(model, monkeypatch, cache, in_this_process):
    for name in ("old.onnx", "old.bin", "old.npz", "older.onnx"):
        (cache / name).write_text("")
        os.utime(cache / name, (0, 0))
    for path in cache.glob("[!o]*.onnx"):  # as if it had never been made
        path.unlink()
    monkeypatch.setattr(onnx_encoders, "KEPT", 1)
    NewProducts(*model, CPU, torch.float32, fast=True)
    assert sorted(path.suffix for path in cache.iterdir()) == [".bin", ".npz", ".onnx"]


def test_other_precisions_are_left_to_torch(model, empty):
    made = NewProducts(*model, CPU, torch.bfloat16, fast=True)
    assert isinstance(made.text, Encoder) and not empty.exists()
