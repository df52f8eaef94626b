"""Network weights on disk: per network a safetensors file and a small JSON file, never a pickle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mufin.artifacts.files import ArtifactError, publish, read_json, write_json


def write_members(members: Iterable[tuple[dict, dict[str, Tensor]]], folder: Path) -> None:
    """Publishes all (facts, weights) of an ensemble, or none of them.

    Member m is written to `member-<m>/model.json` and `member-<m>/model.safetensors`.
    """
    with publish(folder) as scratch:
        for number, (facts, weights) in enumerate(members):
            member = scratch / f"member-{number}"
            member.mkdir(parents=True)
            save_file({n: t.contiguous() for n, t in weights.items()}, member / "model.safetensors")
            write_json(facts, member / "model.json")


def read_members(folder: Path) -> list[tuple[dict, dict[str, Tensor]]]:
    """The (facts, weights) of each member; raises ArtifactError if one is missing or broken."""
    members = sorted(folder.glob("member-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    if not members:
        raise ArtifactError(
            f"{folder} has no member-0; run `dvc repro` (or the stage that writes it) first"
        )
    return [(read_json(member / "model.json"), _weights(member)) for member in members]


def _weights(member: Path) -> dict[str, Tensor]:
    try:
        return load_file(member / "model.safetensors")
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(
            f"{member}/model.safetensors cannot be read ({reason}); run `dvc repro`"
        ) from None
