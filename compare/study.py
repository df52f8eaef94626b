"""What the study compares: variants and baselines by name, read from a file, with the seeds.

`compare/results/<name>@<seed>/` is what one variant or baseline leaves: `test.parquet`
(predictions), `facts.json`, and for MUFIN itself `methods/<row>.parquet`, rows that need no
training of their own.
"""

from __future__ import annotations

import re
import time
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

import psutil

from mufin import code
from mufin.errors import MufinError

FOLDER = "compare/results"
BASE = "base"  # no row: Modules I and II of MUFIN at a seed, which most variants share
OF_MUFIN = {  # rows that `evaluate` makes beside what it predicts with: its own names for them
    "mufin_fixed": "mufin",
    "mufin_chosen": "mufin_chosen",
    "mufin_without_ridge": "mufin_without_ridge",
    "mufin_without_votes": "mufin_without_votes",
    "mufin_without_pairs": "mufin_without_pairs",
    "mufin_rare_and_popular": "mufin_rare_and_popular",
    "module_1_bag": "module_1_bag",
    "module_1_vec": "module_1_vec",
    "alpha_1_at_prediction": "alpha_1",
}
PREDICTS = {  # evaluate.mix: what `mufin` is then
    "fixed": "mufin_fixed",
    "chosen": "mufin_chosen",
    "cross_validated": "mufin_chosen",
}


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared: `compare/variants.yaml`, or another file of its form."""

    seeds: list[int]
    variants: dict[str, dict[str, object]]  # name -> {dotted setting: value}, where it differs
    baselines: dict[str, str]  # file of mufin/baselines/ -> title; trained, at every seed
    reference: dict[str, str]  # likewise; nothing is drawn, the first seed stands for all
    # likewise; they know the built-in sample's attributes, so they are no methods to compare with
    ceilings: dict[str, str] = field(default_factory=dict)

    def seeds_of(self, row: str) -> list[int]:
        """The seeds at which a row is run."""
        drawn = row not in {*self.reference, *self.ceilings}
        return self.seeds if drawn else self.seeds[:1]


def read_study(path: Path) -> Study:
    """The study that a file asks for.

    Raises MufinError where it has another form or an unknown name.
    """
    from ruamel.yaml import YAML

    try:
        content = YAML(typ="safe", pure=True).load(path.read_text())
    except FileNotFoundError:
        raise MufinError(
            f"{path} is missing; `make compare` writes compare/study.yaml, and "
            "`mufin use <profile>` writes compare/variants.yaml"
        ) from None
    parts = {
        f.name: f.default_factory is MISSING for f in fields(Study)
    }  # whether it must be there
    needed = {name for name, must in parts.items() if must}
    if not isinstance(content, dict) or not needed <= set(content) <= set(parts):
        raise MufinError(
            f"{path} must have {', '.join(n for n in parts if n in needed)}, may have "
            f"{', '.join(n for n in parts if n not in needed)}, and nothing else"
        )
    study = Study(**content)
    check(study, path)
    return study


def check(study: Study, path: Path) -> None:
    """Raises MufinError where seeds or names make no sense.

    `path` is the file that they are from.
    """
    _check_seeds(study.seeds, path)
    _check_names(study, path)


def _check_seeds(seeds: object, path: Path) -> None:
    whole = isinstance(seeds, list) and all(isinstance(s, int) and s >= 0 for s in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise MufinError(
            f"{path}: seeds is {seeds!r}; it must be a list of different whole numbers, 0 or more"
        )


def _check_names(study: Study, path: Path) -> None:
    variants = study.variants
    settings = isinstance(variants, dict) and all(isinstance(v, dict) for v in variants.values())
    if not settings or "mufin" not in variants:
        raise MufinError(
            f"{path}: variants must map each name to its settings, and include `mufin`"
        )
    for part in ("baselines", "reference", "ceilings"):
        titles = getattr(study, part)
        if not isinstance(titles, dict) or not all(isinstance(t, str) for t in titles.values()):
            raise MufinError(
                f"{path}: {part} is {titles!r}; it must be names with their titles, or {{}}"
            )
        if unknown := [name for name in titles if name not in baselines()]:
            raise MufinError(
                f"{path}: {part} has {unknown[0]}, and mufin/baselines/{unknown[0]}.py is missing; "
                f"there are {', '.join(baselines())}"
            )
    others = [*study.baselines, *study.reference, *study.ceilings]
    names = [*variants, *OF_MUFIN, *others, BASE]
    if wrong := [n for n in names if names.count(n) > 1 or not re.fullmatch(r"\w+", str(n))]:
        raise MufinError(
            f"{path}: {wrong[0]} cannot be the name of a row: it is used twice, "
            "or has characters other than letters, digits and _"
        )


def baselines() -> list[str]:
    """The names of the files of mufin/baselines/."""
    return sorted(p.stem for p in (code.ROOT / "mufin/baselines").glob("[!_]*.py"))


def tell_time(row: str, seed: int) -> None:
    """Print the seconds since this process started: what the row took."""
    seconds = time.time() - psutil.Process().create_time()
    print(f"{row}, seed {seed}: {seconds:.0f} s", flush=True)
