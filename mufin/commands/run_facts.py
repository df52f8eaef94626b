"""What the folder of a run says about itself; reads headers and small files, and imports no torch.

What is missing is named; what is damaged raises ArtifactError.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from mufin.artifacts.contents import Contents, checked
from mufin.artifacts.files import artifact_json, read_json, read_sealed_json
from mufin.commands.weight_headers import parameters_of
from mufin.errors import ArtifactError, MufinError
from mufin.params import Params, load_params
from mufin.profiles import settings_of

ARTIFACTS = (
    "data/raw",
    "data/curated",
    "data/precomputed",
    "models/pretrain",
    "data/embeddings",
    "data/shortlists",
    "models/transfer",
    "models/finetune",
    "models/index",
    "data/folds",
    "data/predictions",
)
MIX, METRICS, PARAMS = "models/mix.json", "metrics/evaluate.json", "params.yaml"
SETTINGS = (  # that say most about a run
    "members",
    "curate.split",
    "encoder.modalities",
    "encoder.dim",
    "encoder.image.name",
    "encoder.image.weights",
    "encoder.image.trainable_blocks",
    "encoder.text.name",
    "encoder.text.weights",
    "encoder.text.trainable_layers",
    "attention.a_s",
    "transfer.a_c",
    "transfer.classifier",
    "pretrain.epochs",
    "finetune.epochs",
    "finetune.loss",
    "index.search",
    "evaluate.mix",
    "evaluate.candidates",
)


def facts_of(home: Path) -> dict:
    """{section: facts} of the run in the folder `home`; a section of what is missing is empty.

    Raises ArtifactError for an artifact that is damaged, ParamsError for wrong settings, and
    MufinError if there is nothing of a run.
    """
    there = [name for name in (*ARTIFACTS, MIX, METRICS, PARAMS) if (home / name).exists()]
    if not there:
        raise MufinError(
            f"{home} has no {PARAMS}, and nothing in data/ or models/; name the folder of a run"
        )
    contents = {name: checked(home / name) for name in ARTIFACTS if name in there}
    settings = load_params(home / PARAMS) if PARAMS in there else None
    return {
        "folder": str(home.resolve()),
        "made": _made(home, contents),
        "data": _data(home, contents, settings),
        "settings": _settings(settings),
        "networks": _networks(home, contents),
        "mix": _mix(home) if MIX in there else {},
        "metrics": _metrics(home / METRICS) if METRICS in there else {},
        "disk": _sizes(contents),
        "ids": {name: found.id for name, found in contents.items()},
        "made_from": {n: found.made_from for n, found in contents.items() if found.made_from},
        "missing": [n for n in (*ARTIFACTS, MIX, METRICS, PARAMS) if n not in there],
    }


def _made(home: Path, contents: dict[str, Contents]) -> str:
    """The time of the last file that says what a run made, in UTC; '' for none.

    Where DVC has restored the files, it is the time at which it did.
    """
    files = [found.folder / "contents.json" for found in contents.values()]
    files += [home / name for name in (MIX, METRICS) if (home / name).exists()]
    if not files:
        return ""
    last = max(path.stat().st_mtime for path in files)
    return datetime.fromtimestamp(last, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _data(home: Path, contents: dict[str, Contents], settings: Params | None) -> dict:
    out: dict[str, object] = {}
    if "data/raw" in contents:
        out["source"] = _json(home / "data/raw/source.json").get("source")
    elif settings is not None:
        out["source"] = settings.download.source
    if "data/curated" in contents:
        folder = home / "data/curated"
        out["split"] = _json(folder / "split.json").get("split")
        for name in ("products", "labels", "train", "valid", "test"):
            out[name] = _rows(folder / f"{name}.parquet")
        unseen = folder / "unseen/labels.parquet"
        out["unseen labels"] = _rows(unseen) if unseen.exists() else 0
    if "data/precomputed" in contents:
        images = _json(home / "data/precomputed/manifest.json").get("image")
        out["pictures"] = images.get("count", 0) if isinstance(images, dict) else 0
    return out


def _rows(path: Path) -> int:
    """The rows of a Parquet file, by its footer; raises ArtifactError."""
    from mufin.artifacts.tables import batch_count

    return batch_count(path, 1)


def _json(path: Path) -> dict:
    """The object in a JSON file of an artifact; raises ArtifactError where there is none."""
    said = artifact_json(path)
    if not isinstance(said, dict):
        raise ArtifactError(f"{path} is no JSON object; run `dvc repro`")
    return said


def _settings(settings: Params | None) -> dict:
    if settings is None:
        return {}
    values = settings_of(settings)
    return {name: values[name] for name in SETTINGS}


def _networks(home: Path, contents: dict[str, Contents]) -> dict:
    """Of the last stage of training that is there."""
    stages = [n for n in ("models/finetune", "models/transfer", "models/pretrain") if n in contents]
    if not stages:
        return {}
    members = sorted((home / stages[0]).glob("member-*"))
    if not members:
        raise ArtifactError(f"{home / stages[0]} has no member-0; run `dvc repro`")
    facts = _json(members[0] / "model.json")
    counts = parameters_of(members[0] / "model.safetensors")
    return {
        "from": stages[0],
        "members": len(members),
        "modalities": facts.get("modalities"),
        "dimensions": facts.get("dim"),
        "a_s": facts.get("a_s"),
        "a_c": facts.get("a_c"),
        "classifier": facts.get("classifier"),
        "parameters per member": sum(counts.values()),
        "of these": counts,
    }


def _mix(home: Path) -> dict:
    return {n: v for n, v in read_sealed_json(home / MIX).items() if n != "made_from"}


def _metrics(path: Path) -> dict:
    """{split: {metric: percent}}."""
    said = read_json(path)
    if not isinstance(said, dict) or not all(isinstance(part, dict) for part in said.values()):
        raise ArtifactError(f"{path} has no metrics; run `dvc repro evaluate`")
    return said


def _sizes(contents: dict[str, Contents]) -> dict[str, int]:
    """{artifact: bytes}."""
    sizes = {name: sum(n for n, _ in found.files.values()) for name, found in contents.items()}
    return sizes | {"all": sum(sizes.values())} if sizes else {}
