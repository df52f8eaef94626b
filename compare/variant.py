"""One of MUFIN's variants at one seed: the stages that its settings touch, run anew; the rest taken from the base.

python -m pipeline.variant no_a_c 0        into data/compare/no_a_c@0; the settings are a line of compare/variants.yaml
python -m pipeline.variant base 0          MUFIN's Modules I and II at that seed, which most variants share
"""

from __future__ import annotations

import contextlib
import importlib
import io
import shutil
import sys
from pathlib import Path
from typing import Callable

from compare.rows import OF_MUFIN, PREDICTS, read_wanted
from mufin import runtime
from mufin.artifacts.curated import code
from mufin.artifacts.files import fingerprint, publish, read_json, write_json
from mufin.errors import MufinError
from mufin.params import load_params

MADE = {  # stage -> what it leaves
    "precompute": ["data/precomputed"],
    "pretrain": ["models/pretrain"],
    "retrieve": ["data/embeddings", "data/shortlists"],
    "transfer": ["models/transfer"],
    "finetune": ["models/finetune"],
    "index": ["models/index"],
    "evaluate": ["data/predictions"],
}
BASE = ("precompute", "pretrain", "retrieve")
TOUCHES = {  # a setting -> the first stage that reads it; the longest name that fits counts
    "seed": "precompute",
    "members": "pretrain",
    "encoder": "pretrain",
    "encoder.modalities": "precompute",
    "encoder.image": "precompute",
    "encoder.text": "precompute",
    "encoder.lexical": "precompute",
    "attention": "pretrain",
    "pretrain": "pretrain",
    "retrieve": "retrieve",
    "transfer": "transfer",
    "finetune": "finetune",
    "finetune.normalise_classifier": "transfer",
    "index": "index",
    "evaluate": "evaluate",
}


def main(
    name: str,
    seed: int,
    variants: Path = Path("compare/variants.yaml"),
    params: Path = Path("params.yaml"),
    data: Path = Path("data"),
    out: Path = Path("data/compare"),
):
    """Run a variant, publish its predictions on test; a stage that fails costs the row, with its reason, not the run."""
    settings = changes(read_wanted(variants).variants, name)
    text, base = changed(params, settings | {"seed": seed}), out / f"base@{seed}"
    inputs = [data / "curated", data / "precomputed"] + ([] if name == "base" else [base])
    # The stages run in this process: each start of torch costs seconds. All are imported first, so that the fingerprints of
    # their checkpoints are the same after a kill; by name, so that the base does not depend on the last stage's code.
    modules = {
        stage: importlib.import_module(f"pipeline.{stage}")
        for stage in (BASE if name == "base" else MADE)
    }
    work = runtime.scratch("variant", fingerprint((name, text), inputs, code()))
    (work / "params.yaml").write_text(text)
    load_params(work / "params.yaml")  # refuses in one sentence what the settings make of it
    if name == "base":
        todo = BASE[BASE.index(seed_touches(seed, params)) :]
        _link(
            [data / "raw", data / "curated"]
            + ([] if todo[0] == "precompute" else [data / "precomputed"]),
            work / "data",
        )
        for stage in todo:
            _run(stage, modules[stage].main, work)
        _publish_base(work, [made for stage in todo for made in MADE[stage]], base)
    else:
        todo = list(MADE)[list(MADE).index(touches(settings)) :]
        _take(
            data, base, work, [made for stage in BASE if stage not in todo for made in MADE[stage]]
        )
        _row(
            name, seed, {stage: modules[stage].main for stage in todo}, work, out / f"{name}@{seed}"
        )
    runtime.discard(work)


def changes(variants: dict[str, dict], name: str) -> dict[str, object]:
    """The settings of variant `name`; of `base` none. Raises MufinError on a name that the file has not."""
    if name == "base":
        return {}
    if name not in variants:
        raise MufinError(
            f"{name} is not a variant; compare/variants.yaml has {', '.join(variants)}"
        )
    return dict(variants[name])


def changed(params: Path, settings: dict[str, object]) -> str:
    """params.yaml with `settings` (dotted names) in place; raises MufinError on a name that it has not."""
    from ruamel.yaml import YAML

    yaml = YAML()
    content = yaml.load(params.read_text())
    for name, value in settings.items():
        *sections, key = name.split(".")
        section = content
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or key not in section:
            raise MufinError(f"{name} is not a setting of {params}; look at compare/variants.yaml")
        section[key] = value
    with io.StringIO() as file:
        yaml.dump(content, file)
        return file.getvalue()


def touches(settings: dict[str, object]) -> str:
    """The first stage that a variant's settings make another than the base's; past the base's own stages, transfer."""
    order, first = list(MADE), "transfer"
    for name in settings:
        fits = [n for n in TOUCHES if f"{name}.".startswith(f"{n}.")]
        if not fits:
            raise MufinError(
                f"{name} cannot differ between variants: all share download and curate, seeds have their own line"
            )
        first = min(first, TOUCHES[max(fits, key=len)], key=order.index)
    return first


def seed_touches(seed: int, params: Path) -> str:
    """precompute, if another seed draws other random weights; else the frozen encoders are the same for every seed, and
    precompute's work, by far the largest files, is shared."""
    now = load_params(params)
    drawn = "random" in (now.encoder.image.weights, now.encoder.text.weights)
    return "precompute" if drawn and seed != now.seed else "pretrain"


def _link(sources: list[Path], folder: Path) -> None:
    """Symbolic links in `folder` to files of the project."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        if not source.exists():
            raise MufinError(
                f"{source} is missing; run `dvc repro` (or the stage that writes it) first"
            )
        if not (folder / source.name).is_symlink():
            (folder / source.name).symlink_to(source.resolve())


def _take(data: Path, base: Path, work: Path, wanted: list[str]) -> None:
    """Link what the base made, and what it took itself from the pipeline."""
    _link([data / "raw", data / "curated"], work / "data")
    for made in wanted:
        own = base / made
        _link([own if own.exists() else data.parent / made], (work / made).parent)


def _run(stage: str, main: Callable, work: Path) -> None:
    """The stage in `work`, unless all that it leaves is there: then it was run before a kill. (Some stages write their
    metrics first, some last.)"""
    if not all((work / left).exists() for left in (f"metrics/{stage}.json", *MADE[stage])):
        with (
            contextlib.chdir(work),
            contextlib.redirect_stdout(io.StringIO()),
        ):  # the table that counts comes at the end
            main()


def _publish_base(work: Path, made: list[str], target: Path) -> None:
    with publish(target) as folder:
        for name in made:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(work / name, folder / name)


def _row(name: str, seed: int, todo: dict[str, Callable], work: Path, target: Path) -> None:
    """Run `todo` and publish what the row needs, or why there is none."""
    facts: dict = {"row": name, "seed": seed}
    try:
        for stage, main in todo.items():
            _run(stage, main, work)
        report = read_json(work / "metrics/evaluate.json")
        facts["milliseconds_a_datapoint"] = report["milliseconds_a_datapoint"]
        facts["seconds"] = {
            stage: read_json(work / f"metrics/{stage}.json")["seconds"] for stage in todo
        }
    except Exception as error:
        if name == "mufin" or runtime.refused(
            error
        ):  # without it there is nothing to compare with; a full disk is no row's
            raise
        facts["failed"] = (
            str(error)
            if isinstance(error, MufinError)
            else f"{stage}: {type(error).__name__}: {error}"
        )
        print(f"{name}, seed {seed}, failed: {facts['failed']}", file=sys.stderr, flush=True)
    with publish(target) as folder:
        folder.mkdir()
        write_json(facts, folder / "facts.json")
        if "failed" not in facts:
            shutil.copy(work / "data/predictions/test.parquet", folder / "test.parquet")
        if name == "mufin":
            (folder / "methods").mkdir()
            for row in set(OF_MUFIN) - {PREDICTS[load_params(work / "params.yaml").evaluate.mix]}:
                shutil.copy(
                    work / f"data/predictions/methods/{OF_MUFIN[row]}.parquet",
                    folder / f"methods/{row}.parquet",
                )


if __name__ == "__main__":
    runtime.run(main)
