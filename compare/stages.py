"""The stages of the pipeline as dvc.yaml declares them: their order, settings and outs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mufin.errors import MufinError

FIRST = "precompute"  # the stages before it are the same for all rows
ROW = "transfer"  # the stages from FIRST up to it are the base, which most variants share


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of dvc.yaml."""

    name: str
    settings: list[str]  # dotted names of params.yaml: single settings, or whole sections
    outs: list[str]  # files and folders that it leaves, below the home folder

    @property
    def data(self) -> list[str]:
        """The outs that later stages read: all but the metrics."""
        return [out for out in self.outs if not out.startswith("metrics/")]

    def reads(self, setting: str) -> bool:
        """Whether it has `setting` among its settings or in a section, or a part of it."""
        return any(
            f"{setting}.".startswith(f"{own}.") or own.startswith(f"{setting}.")
            for own in self.settings
        )


def read_stages(path: Path) -> list[Stage]:
    """All stages of a dvc.yaml, in its order."""
    from ruamel.yaml import YAML

    content = YAML(typ="safe", pure=True).load(path.read_text())
    return [
        Stage(name, _settings(stage.get("params", [])), [_path(out) for out in stage["outs"]])
        for name, stage in content["stages"].items()
    ]


def _settings(params: list) -> list[str]:
    """The names that stand for settings of params.yaml; a mapping names another file."""
    return [name for name in params if isinstance(name, str)]


def _path(out: str | dict) -> str:
    return out if isinstance(out, str) else next(iter(out))


def since(stages: list[Stage], name: str) -> list[Stage]:
    """The stages from `name` on."""
    return stages[[stage.name for stage in stages].index(name) :]


def until(stages: list[Stage], name: str) -> list[Stage]:
    """The stages before `name`."""
    return stages[: [stage.name for stage in stages].index(name)]


def of_variant(stages: list[Stage], settings: dict[str, object]) -> list[Stage]:
    """The stages that a variant runs: from the first that reads one of its settings, or from ROW.

    Raises MufinError on a setting that cannot differ between variants.
    """
    shared, first = until(stages, FIRST), since(stages, ROW)
    for name in settings:
        readers = [stage for stage in stages if stage.reads(name)]
        if name == "seed" or not readers or readers[0] in shared:
            raise MufinError(
                f"{name} cannot differ between variants: they share "
                f"{' and '.join(stage.name for stage in shared)}, and each runs at every seed"
            )
        first = max(first, since(stages, readers[0].name), key=len)
    return first


def of_base(stages: list[Stage], redrawn: bool) -> list[Stage]:
    """The stages up to ROW; without precompute where its results are the same for every seed."""
    own = since(until(stages, ROW), FIRST)
    return own if redrawn else own[1:]
