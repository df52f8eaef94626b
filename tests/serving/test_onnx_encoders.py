"""Encoders in ONNX Runtime: equal to torch's, kept in the cache folder, never trusted blindly."""

from __future__ import annotations

import io
import shutil

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


@pytest.fixture(scope="module", params=[0, 1], ids=["frozen", "last layer trains"])
def model(request, tmp_path_factory):
    """data/precomputed and its settings, of encoders whose last `param` blocks train."""
    folder = tmp_path_factory.mktemp("onnx")
    changes = {
        "encoder.image.trainable_blocks": request.param,
        "encoder.text.trainable_layers": request.param,
    }
    with inside(folder, **changes) as home:
        run_stages(home, last="precompute")
        from mufin.params import load_params

        return Precomputed(home / "data/precomputed"), load_params(home / "params.yaml").encoder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mufin" / "encoders"


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def arrays(made: NewProducts) -> list[np.ndarray]:
    store = made.store([*NEW, NewProduct("Rug, blue", (picture(1), picture(2)))])
    batch = store.batch(np.arange(4))
    return [batch.text.float().numpy(), batch.images.float().numpy()]


def of_torch(model, monkeypatch) -> list[np.ndarray]:
    with monkeypatch.context() as patch:
        patch.setattr(onnx_encoders, "_installed", lambda: False)
        made = NewProducts(*model, CPU, torch.float32)
    assert isinstance(made.text, Encoder) and isinstance(made.image, Encoder)
    return arrays(made)


def test_onnx_gives_what_torch_gives(model, cache, monkeypatch):
    wanted = of_torch(model, monkeypatch)
    for _ in ("exported", "from the cache folder"):
        made = NewProducts(*model, CPU, torch.float32)
        assert isinstance(made.text, OnnxEncoder) and isinstance(made.image, OnnxEncoder)
        for ours, theirs in zip(arrays(made), wanted):
            assert ours.shape == theirs.shape
            # activations are kept as float16
            assert np.abs(ours - theirs).max() <= 2e-3 * np.abs(theirs).max()
    assert len(list(cache.glob("*.onnx"))) == 2


def test_the_cache_needs_neither_timm_nor_transformers(model, monkeypatch):
    NewProducts(*model, CPU, torch.float32)
    monkeypatch.setattr(onnx_encoders, "load_encoder", lambda folder: pytest.fail("loaded"))
    NewProducts(*model, CPU, torch.float32)


@pytest.mark.parametrize("harm", ["cut", "noise", "other outputs", "no outputs", "swapped"])
def test_a_damaged_cache_is_made_anew(model, harm, cache, monkeypatch):
    wanted = of_torch(model, monkeypatch)
    NewProducts(*model, CPU, torch.float32)
    paths = sorted(cache.glob("*.onnx"))
    if harm == "cut":
        for path in paths:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif harm == "noise":
        for path in paths:
            content = bytearray(path.read_bytes())
            for at in range(len(content) // 3, len(content), 97):
                content[at] ^= 85
            path.write_bytes(content)
    elif harm == "other outputs":
        for path in paths:
            with np.load(path.with_suffix(".npz")) as saved:
                content = dict(saved)
            content["out/0"] += 1
            np.savez(path.with_suffix(".npz"), **content)
    elif harm == "no outputs":
        for path in paths:
            path.with_suffix(".npz").unlink()
    else:
        shutil.move(paths[0], cache / "a")
        shutil.move(paths[1], paths[0])
        shutil.move(cache / "a", paths[1])
    made = NewProducts(*model, CPU, torch.float32)
    assert isinstance(made.text, OnnxEncoder) and isinstance(made.image, OnnxEncoder)
    for ours, theirs in zip(arrays(made), wanted):
        assert np.abs(ours - theirs).max() <= 2e-3 * np.abs(theirs).max()


def test_an_export_that_differs_is_not_used(model, monkeypatch, cache, capsys):
    monkeypatch.setattr(onnx_encoders, "CLOSE", -1.0)
    made = NewProducts(*model, CPU, torch.float32)
    assert isinstance(made.text, Encoder) and isinstance(made.image, Encoder)
    said = capsys.readouterr().err
    assert "image: torch, not ONNX Runtime (" in said and "its results differ by" in said
    assert not list(cache.iterdir())


def test_without_a_cache_folder_torch_encodes(model, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert isinstance(NewProducts(*model, CPU, torch.float32).text, Encoder)


def test_only_the_last_used_encoders_are_kept(model, monkeypatch, cache):
    monkeypatch.setattr(onnx_encoders, "KEPT", 1)
    NewProducts(*model, CPU, torch.float32)
    assert len(list(cache.iterdir())) == 3  # one encoder: .onnx, .bin and .npz


def test_other_precisions_are_left_to_torch(model, cache):
    made = NewProducts(*model, CPU, torch.bfloat16)
    assert isinstance(made.text, Encoder) and not cache.exists()
