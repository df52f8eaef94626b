"""Models on disk: safetensors and a small JSON, a folder a member; and a fresh network from the settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.artifacts import ArtifactError, publish, read_json, write_json
from pipeline.nn.attention import cross_attention
from pipeline.nn.classifiers import LabelClassifiers
from pipeline.nn.mufin import IMAGE, LexicalBag, Mufin, Projection
from pipeline.nn.vision_language import load_encoder
from pipeline.params import Params


def new_mufin(params: Params, precomputed: Path, seed: int) -> Mufin:
    """MUFIN before Module I: encoders from `data/precomputed/encoders`, all that is new drawn from `seed`."""
    torch.manual_seed(seed)
    encoder, attention = params.encoder, params.attention
    facts = {
        "modalities": list(encoder.modalities), "dim": encoder.dim, "projection": encoder.projection,
        "standardise": encoder.standardise, "dropouts": {"text": encoder.input_dropout, "image": encoder.image_dropout},
        "modality_dropout": encoder.modality_dropout, "gates": attention.gates, "image_gate": attention.image_gate,
        "heads": attention.heads, "dropout": attention.dropout, "lexical_terms": _lexical_terms(params, precomputed),
        "a_s": attention.a_s, "a_c": "attention", "classifiers": None,
    }
    return _network(facts, precomputed, seed)


def _network(facts: dict, precomputed: Path, seed: int | None) -> Mufin:
    encoders: dict[str, nn.Module] = {}
    projections: dict[str, nn.Module] = {}
    for name in facts["modalities"]:
        if name == "lexical":
            encoders[name] = LexicalBag(facts["lexical_terms"], facts["dim"])
            projections[name] = nn.Identity()
            continue
        encoders[name] = load_encoder(precomputed / "encoders" / name, seed)
        frozen = encoders[name].kind == "descriptors"          # statistics of what trains would go stale
        mean, std = _statistics(precomputed, name) if facts["standardise"] and frozen else (None, None)
        projections[name] = Projection(encoders[name].width, facts["dim"], facts["projection"],
                                       facts["dropouts"][name], mean, std)
    if getattr(encoders.get("text"), "reads_pictures", False):
        # VisualBERT reads E_V's frozen features: standardised, but as wide as they are
        width, image = encoders.pop("image").width, projections["image"]
        projections["image"] = Projection(width, width, "maxpool", facts["dropouts"]["image"])
        projections["image"].mean, projections["image"].scale = image.mean, image.scale
    model = Mufin(encoders, projections, facts["dim"], facts["heads"], facts["dropout"], facts["gates"],
                  facts["modality_dropout"], facts["a_s"], facts["a_c"])
    model.facts = facts
    if model.gates is not None:
        model.gates.data[IMAGE] = facts["image_gate"]
    if facts["classifiers"]:
        model.classifiers = LabelClassifiers(facts["classifiers"]["labels"], facts["dim"],
                                             outer_norm=facts["classifiers"]["outer_norm"])
    return model


def _lexical_terms(params: Params, precomputed: Path) -> int:
    return len(read_json(precomputed / "lexical_terms.json")) if "lexical" in params.encoder.modalities else 0


def _statistics(precomputed: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the train products' frozen descriptors."""
    try:
        return tuple(torch.from_numpy(np.load(precomputed / f"{name}_{kind}.npy")) for kind in ("mean", "std"))
    except FileNotFoundError:
        raise ArtifactError(f"{precomputed} has no {name}_mean.npy; run `dvc repro precompute`") from None


def save_members(models: list[Mufin], folder: Path) -> None:
    """Publish `member-<m>/model.safetensors` and `model.json` for each member, all or none."""
    with publish(folder) as scratch:
        for number, model in enumerate(models):
            member = scratch / f"member-{number}"
            member.mkdir(parents=True)
            state = {n: t.detach().cpu().contiguous().clone() for n, t in model.state_dict().items()}
            save_file(state, member / "model.safetensors")
            write_json(model.facts, member / "model.json")


def load_members(folder: Path, precomputed: Path) -> list[Mufin]:
    """The members of `folder`, in eval mode, on the CPU."""
    members = sorted(folder.glob("member-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    if not members:
        raise ArtifactError(f"{folder} has no member-0; run `dvc repro` (or the stage that writes it) first")
    return [_load(member, precomputed) for member in members]


def _load(member: Path, precomputed: Path) -> Mufin:
    facts = {"a_s": "attention", "a_c": "attention"} | read_json(member / "model.json")      # older models name neither
    model = _network(facts, precomputed, None)
    try:
        model.load_state_dict(load_file(member / "model.safetensors"))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise ArtifactError(f"{member} does not fit the encoders in {precomputed} or is broken "
                            f"({str(error).splitlines()[0]}); run `dvc repro`") from None
    return model.eval()


def with_classifiers(model: Mufin, num_labels: int, alpha: float, outer_norm: bool) -> Mufin:
    """`model` with one-vs-all classifiers of `num_labels` labels added (Module III)."""
    model.classifiers = LabelClassifiers(num_labels, model.dim, alpha, outer_norm)
    model.facts = {**model.facts, "classifiers": {"labels": num_labels, "outer_norm": outer_norm}}
    return model


def with_cross_attention(model: Mufin, kind: str) -> Mufin:
    """`model` with A_C, or what stands in its place, at its start (Module III)."""
    model.cross_attention = cross_attention(kind, model.dim, model.facts["heads"], model.facts["dropout"])
    model.facts = {**model.facts, "a_c": kind}
    return model


def settings_of(section: object) -> dict:
    """A section of params as plain values, for a metrics file."""
    return dataclasses.asdict(section)
