"""The frozen parts of encoders in ONNX Runtime, which is faster on a CPU than torch.

They are exported once, compared with torch, and kept in the user's cache folder
(`$XDG_CACHE_HOME/mufin/encoders`) with a few inputs and the outputs of torch. Whenever one is
loaded it must give these outputs again, within `CLOSE`; if not it is made anew. So a later start
needs neither torch's copy of the weights nor timm and transformers, which take seconds to import.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from mufin import runtime
from mufin.artifacts.contents import contents_of
from mufin.artifacts.files import artifact_json
from mufin.artifacts.precomputed import Precomputed
from mufin.errors import shown
from mufin.nn.encoder import Encoder, Kind
from mufin.nn.vision_language import load_encoder

OPSET = 17
CLOSE = 1e-4  # largest difference to torch, times the largest output; float32 rounding is 1e-6
KEPT = 4  # encoders in the cache folder, the last used ones
VERSION = 1  # of the files in the cache folder
SUFFIXES = (".bin", ".onnx", ".npz")  # weights, the rest of the model, inputs with their outputs
ROOT = Path(__file__).parents[2]  # where `-m` finds mufin


class OnnxEncoder:
    """The frozen part of an encoder; like `Encoder` where new products are concerned."""

    def __init__(self, content: Path, kind: Kind):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = runtime.workers()
        # A thread that waits must not keep a core from the server's other work
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        # Weights stay in the mapped file: their packed copy would double the memory
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_cpu_mem_arena = False
        self.kind: Kind = kind
        self.session = onnxruntime.InferenceSession(
            str(content), options, providers=["CPUExecutionProvider"]
        )
        self.names = [one.name for one in self.session.get_inputs()]

    def frozen(self, *inputs: Tensor) -> Tensor:
        """As `Encoder.frozen`: of pixels, or of tokens and their lengths."""
        given = {name: tensor.numpy() for name, tensor in zip(self.names, inputs)}
        return torch.from_numpy(self.session.run(None, given)[0])


def fast_encoder(
    precomputed: Precomputed, modality: str, probes: list[tuple[Tensor, ...]]
) -> Encoder | OnnxEncoder:
    """The encoder of `modality`, whose frozen part runs in ONNX Runtime if that is possible.

    It is not where ONNX Runtime is not installed, nothing is frozen, or the results differ from
    those of torch on the inputs `probes`, at least one; then the encoder is torch's.
    """
    folder = precomputed.stored_encoder(modality)
    if not _can_freeze(folder) or not _installed():
        return load_encoder(folder)
    path = cache_folder() / f"{_name(precomputed, modality, probes)}.onnx"
    if (kept := _kept(path)) is not None:
        return kept
    if said := _exported(precomputed, modality, path, probes):
        print(f"encoder {modality}: torch, not ONNX Runtime ({said})", file=sys.stderr)
        return load_encoder(folder)
    return _kept(path) or load_encoder(folder)


def cache_folder() -> Path:
    """Where exported encoders are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mufin" / "encoders"


def _installed() -> bool:
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


def _can_freeze(folder: Path) -> bool:
    """Whether a part of the encoder may be frozen; not of vectors that were given."""
    facts = artifact_json(folder / "encoder.json")
    return "given_width" not in facts and facts.get("trainable") != "all"


def _name(precomputed: Precomputed, modality: str, probes: list[tuple[Tensor, ...]]) -> str:
    """A hash of the encoder's files, the probes and all versions that matter."""
    import onnxruntime

    said = [str(VERSION), str(OPSET), torch.__version__, onnxruntime.__version__]
    files, inside = contents_of(precomputed.folder).files, f"encoders/{modality}/"
    said += [f"{name} {digest}" for name, (_, digest) in files.items() if name.startswith(inside)]
    said += [str(tensor.tolist()) for probe in probes for tensor in probe if tensor.numel() < 1000]
    return hashlib.sha256("\n".join(sorted(said)).encode()).hexdigest()[:32]


def _kept(path: Path) -> OnnxEncoder | None:
    """The encoder at `path` if it is whole and gives what torch gave; None if not."""
    try:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as saved:
            probes = {name: saved[name] for name in saved.files}
        encoder = OnnxEncoder(path, cast(Kind, str(probes["kind"])))
        for n in range(int(probes["count"])):
            found = encoder.frozen(*_probe(probes, n)).numpy()
            if not _close(found, probes[f"out/{n}"], CLOSE):
                return None
    except Exception:  # missing, cut or foreign: what it raises depends on where
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return encoder


def _exported(
    precomputed: Precomputed, modality: str, path: Path, probes: list[tuple[Tensor, ...]]
) -> str:
    """Exports the frozen part to `path`; returns why it cannot be, or ''.

    It runs in a process of its own: the exporter needs the weights several times over, and this
    memory would not all come back.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            made = Path(scratch) / path.name
            asked = {"count": np.array(len(probes))}
            for n, probe in enumerate(probes):
                asked |= {f"in/{n}/{i}": tensor.numpy() for i, tensor in enumerate(probe)}
            _save(asked, made)
            command = [sys.executable, "-m", "mufin.serving.onnx_encoders"]
            command += [str(precomputed.folder.resolve()), modality, str(made), str(CLOSE)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if done.returncode:
                said = done.stderr.strip() or f"exit code {done.returncode}"
                return shown(said.split("\n")[-1])
            for suffix in SUFFIXES:
                os.replace(made.with_suffix(suffix), path.with_suffix(suffix))
        _prune(path.parent)
    except OSError as error:  # no cache folder, or a full disk
        return shown(str(error))
    return ""


def _make(folder: Path, modality: str, path: Path, close: float) -> None:
    """Exports the frozen part of an encoder to `path`, whose .npz has probes, and compares it.

    Adds the outputs of torch to the probes. Raises ValueError if the results differ by more than
    `close`.
    """
    encoder = load_encoder(Precomputed(folder).stored_encoder(modality))
    if encoder.kind == "inputs":
        raise ValueError("no part of it is frozen")
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as asked:
        saved = {name: asked[name] for name in asked.files} | {"kind": np.array(encoder.kind)}
    probes = [_probe(saved, n) for n in range(int(saved["count"]))]
    _export(encoder, probes[0], path)
    onnx = OnnxEncoder(path, encoder.kind)
    for n, probe in enumerate(probes):
        with torch.inference_mode():
            wanted = encoder.frozen(*probe).float().numpy()
        if not _close(found := onnx.frozen(*probe).numpy(), wanted, close):
            raise ValueError(f"its results differ by {np.abs(found - wanted).max():.1e}")
        saved[f"out/{n}"] = wanted
    _save(saved, path)


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    np.savez(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]


def _probe(saved: dict[str, np.ndarray], n: int) -> tuple[Tensor, ...]:
    names = sorted(name for name in saved if name.startswith(f"in/{n}/"))
    return tuple(torch.from_numpy(saved[name]) for name in names)


def _close(found: np.ndarray, wanted: np.ndarray, close: float) -> bool:
    if found.shape != wanted.shape:
        return False
    return bool(np.abs(found - wanted).max(initial=0) <= close * max(1, np.abs(wanted).max()))


class _Frozen(nn.Module):
    """The frozen part as a module of its own."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.encoder.frozen(*inputs)


def _export(encoder: Encoder, inputs: tuple[Tensor, ...], path: Path) -> None:
    names = ["inputs", "lengths"][: len(inputs)]
    axes = {"inputs": {0: "n"}, "lengths": {0: "n"}, "outputs": {0: "n"}}
    if len(inputs) == 2:
        axes["inputs"][1] = "tokens"
        if encoder.kind == "activations":
            axes["outputs"][1] = "tokens"
    with _quiet():
        torch.onnx.export(
            _Frozen(encoder).eval(),
            inputs,
            str(path),
            input_names=names,
            output_names=["outputs"],
            dynamic_axes={name: axes[name] for name in [*names, "outputs"]},
            opset_version=OPSET,
            dynamo=False,
        )
    # Weights in a file beside it, which ONNX Runtime maps
    import onnx

    model, data = onnx.load(path), path.with_suffix(".bin")
    data.unlink(missing_ok=True)
    data.touch()  # also where no tensor is large enough for it
    onnx.save_model(model, path, save_as_external_data=True, location=data.name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice to developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _prune(folder: Path) -> None:
    """Removes all but the last used encoders."""
    files = sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[KEPT:]:
        for suffix in SUFFIXES:
            with contextlib.suppress(OSError):
                path.with_suffix(suffix).unlink()


if __name__ == "__main__":
    _make(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
