"""Network weights on disk: per network a safetensors file and a small JSON file, never a pickle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mufin.artifacts.contents import check, checked
from mufin.artifacts.files import artifact_json, write_json
from mufin.artifacts.publication import publish
from mufin.errors import ArtifactError, shown


def write_members(
    members: Iterable[tuple[dict, dict[str, Tensor]]],
    folder: Path,
    made_from: Mapping[str, str] | None = None,
) -> None:
    """Publishes all (facts, weights) of an ensemble, or none of them.

    Member m is written to `member-<m>/model.json` and `member-<m>/model.safetensors`. `made_from`
    has the ids of the artifacts that the networks belong together with.
    """
    with publish(folder, made_from) as scratch:
        for number, (facts, weights) in enumerate(members):
            member = scratch / f"member-{number}"
            member.mkdir(parents=True)
            save_file({n: t.contiguous() for n, t in weights.items()}, member / "model.safetensors")
            write_json(facts, member / "model.json")


def read_members(folder: Path) -> list[tuple[dict, dict[str, Tensor]]]:
    """The (facts, weights) of each member; raises ArtifactError if they are not as written."""
    checked(folder)
    numbers = range(len(list(folder.glob("member-*"))))
    if not numbers:
        raise ArtifactError(
            f"{folder} has no member-0; run `dvc repro` (or the stage that writes it) first"
        )
    members = [folder / f"member-{number}" for number in numbers]
    return [(artifact_json(member / "model.json"), _weights(member)) for member in members]


def _weights(member: Path) -> dict[str, Tensor]:
    path = member / "model.safetensors"
    check(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        reason = shown(str(error))
        raise ArtifactError(f"{path} cannot be read ({reason}); run `dvc repro`") from None
