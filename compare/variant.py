"""Runs one variant of MUFIN at one seed: the stages that its settings change; the rest is the
base's.

python -m compare.variant no_a_c 0      compare/results/no_a_c@0; the settings are a line of
variants.yaml python -m compare.variant base 0        Modules I and II of MUFIN at that seed, which
most variants share
"""

from __future__ import annotations

import importlib
import io
import shutil
import sys
from pathlib import Path

from compare.stages import Stage, of_base, of_variant, read_stages
from compare.study import BASE, FOLDER, OF_MUFIN, PREDICTS, Study, read_study, tell_time
from mufin import code, runtime
from mufin.artifacts.files import read_json, write_json
from mufin.artifacts.publication import publish
from mufin.errors import MufinError
from mufin.params import load_params


def main(name: str, seed: int, home: runtime.Home = Path(".")):
    """Run a variant and publish its predictions on test. A stage that fails costs the row only."""
    home = home.resolve()
    settings = settings_of(read_study(home / "compare/study.yaml"), name)
    text = changed(home / "params.yaml", settings | {"seed": seed})
    stages, todo = read_stages(home / "dvc.yaml"), planned(home, name, seed, settings)
    base = home / FOLDER / f"{BASE}@{seed}"
    inputs = [home / "data/curated", home / "data/precomputed"]
    if name != BASE:
        inputs.append(_existing(base))
    scripts = [code.ROOT / f"pipeline/{stage.name}.py" for stage in todo]
    marks = [runtime.fingerprint(script.stem, [], script) for script in scripts]
    work = runtime.scratch(
        "variant", runtime.fingerprint((name, text, marks), inputs, Path(__file__))
    )
    (work / "params.yaml").write_text(text)
    load_params(work / "params.yaml")  # raises one sentence where the settings make no sense
    earlier = stages[: stages.index(todo[0])]
    _link(earlier, [home] if name == BASE else [base, home], work)
    if name == BASE:
        for stage in todo:
            _run(stage, work)
        _publish_base(todo, work, base)
    else:
        _publish_row(name, seed, todo, work, home / FOLDER / f"{name}@{seed}")
    runtime.discard(work)
    tell_time(name, seed)


def settings_of(study: Study, name: str) -> dict[str, object]:
    """The settings in which variant `name` differs from params.yaml; none for the base."""
    if name == BASE:
        return {}
    if name not in study.variants:
        raise MufinError(f"{name} is not a variant; there are {', '.join(study.variants)}")
    return dict(study.variants[name])


def planned(home: Path, name: str, seed: int, settings: dict[str, object]) -> list[Stage]:
    """The stages that a variant (or the base) runs at a seed."""
    stages = read_stages(home / "dvc.yaml")
    if name == BASE:
        return of_base(stages, _redrawn(seed, home / "params.yaml"))
    return of_variant(stages, settings)


def _redrawn(seed: int, params: Path) -> bool:
    """Whether frozen encoders have other random weights at this seed.

    If not, precompute's results, by far the largest files, are shared by all seeds.
    """
    now = load_params(params)
    return seed != now.seed and "random" in (now.encoder.image.weights, now.encoder.text.weights)


def changed(params: Path, settings: dict[str, object]) -> str:
    """params.yaml with `settings` (dotted names) in place. Raises MufinError on an unknown name."""
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


def _existing(path: Path) -> Path:
    if not path.exists():
        raise MufinError(f"{path} is missing; run `make compare`, which makes what is missing")
    return path


def _link(stages: list[Stage], places: list[Path], work: Path) -> None:
    """Symbolic links in `work` to the outs of stages that do not run: in the first place that has
    them.
    """
    for out in (out for stage in stages for out in stage.data):
        source = next((place / out for place in places if (place / out).exists()), places[-1] / out)
        (work / out).parent.mkdir(parents=True, exist_ok=True)
        if not (work / out).is_symlink():
            (work / out).symlink_to(_existing(source))


def _run(stage: Stage, work: Path) -> None:
    """The stage in `work`, in this process (each start of torch costs seconds).

    A stage all of whose outs are there is done: it ran before this process was killed.
    """
    if not all((work / out).exists() for out in stage.outs):
        module = importlib.import_module(f"pipeline.{stage.name}")
        (module.evaluate if stage.name == "evaluate" else module.main)(work)


def _publish_base(todo: list[Stage], work: Path, target: Path) -> None:
    with publish(target) as folder:
        for out in (out for stage in todo for out in stage.data):
            (folder / out).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(work / out, folder / out)


def _publish_row(name: str, seed: int, todo: list[Stage], work: Path, target: Path) -> None:
    """Run `todo`, and publish the row's predictions, or the reason why there are none."""
    facts: dict = {"row": name, "seed": seed}
    try:
        for stage in todo:
            _run(stage, work)
        costs = {s.name: read_json(work / f"metrics/runtime/{s.name}.json") for s in todo}
        facts["milliseconds_per_datapoint"] = costs["evaluate"]["milliseconds_per_datapoint"]
        facts["seconds"] = {stage: cost["seconds"] for stage, cost in costs.items()}
    except Exception as error:
        # without MUFIN there is nothing to compare with; a full disk is not this row's fault
        if name == "mufin" or runtime.refused(error):
            raise
        facts["failed"] = (
            str(error)
            if isinstance(error, MufinError)
            else f"{stage.name}: {type(error).__name__}: {error}"
        )
        print(f"{name}, seed {seed}, failed: {facts['failed']}", file=sys.stderr, flush=True)
    with publish(target) as folder:
        folder.mkdir()
        write_json(facts, folder / "facts.json")
        if "failed" not in facts:
            shutil.copy(work / "data/predictions/test.parquet", folder / "test.parquet")
            if read_json(work / "metrics/fitb.json"):  # {} without outfits
                shutil.copy(work / "metrics/fitb.json", folder / "fitb.json")
        if name == "mufin":
            _copy_methods(work, folder / "methods")


def _copy_methods(work: Path, target: Path) -> None:
    """Copy the predictions of the rows that need no training, but for the row that is `mufin`."""
    target.mkdir()
    predicts = PREDICTS[load_params(work / "params.yaml").evaluate.mix]
    for row, method in OF_MUFIN.items():
        file = work / f"data/predictions/methods/{method}.parquet"
        if row != predicts and file.exists():
            shutil.copy(file, target / f"{row}.parquet")


if __name__ == "__main__":
    runtime.run(main)
