"""The structure of the project: imports go down, and dvc.yaml names every file that a stage runs.

python -m tests.test_structure prints the imports between layers, the table of docs/architecture.md.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mufin import deps
from mufin.code import ROOT, files_of, imports

STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
ORDER = (
    "download curate precompute pretrain retrieve transfer finetune index folds evaluate".split()
)
RUN_BY_FOLDS = "pretrain retrieve transfer finetune index".split()
LAYERS = (  # from the bottom; each imports only from layers before it, and from itself
    (
        "errors",
        "environment",
        "interrupts",
        "ragged",
        "progress",
        "hits",
        "metrics",
        "clustering",
        "code",
        "check_machine",
    ),
    ("process_group", "artifacts"),
    ("corpus",),
    ("catalogs",),
    ("nn",),
    ("retrieval", "training"),
    ("ranking",),
    ("baselines",),
    ("evaluation",),
    ("settings_file",),  # of scripts, cli and serving alone, as the next two lines
    ("param_checks",),
    ("catalog_params",),
    ("params", "runtime", "devices"),
    ("cluster",),
    ("profiles",),
    ("outputs", "switching"),  # of cli
    ("serving", "reporting", "inspection", "planning"),
    ("commands",),
    ("cli", "deps"),
    ("pipeline", "compare"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
OF_SCRIPTS = {
    "settings_file",
    "param_checks",
    "catalog_params",
    "params",
    "runtime",
    "devices",
}
MAY_TOUCH = OF_SCRIPTS | {
    "cluster",
    "profiles",
    "switching",
    "inspection",
    "planning",
    "serving",
    "commands",
    "cli",
    "deps",
    "pipeline",
    "compare",
}
LIBRARY = sorted((ROOT / "mufin").rglob("*.py"))
# Reads lists of numbers and texts in pickles of NumPy, and runs none of their code
READER_OF_PICKLES = ROOT / "mufin/catalogs/pickled_lists.py"
SCRIPTS = sorted([*(ROOT / "pipeline").glob("*.py"), *(ROOT / "compare").glob("*.py")])


def layer(path: Path) -> str:
    """The package or top module of a file: nn, runtime, pipeline."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] != "mufin" else parts[1]


def used_layers(path: Path) -> set[str]:
    """The layers whose modules a file imports."""
    out = set()
    for module in imports(path):
        head, _, rest = module.partition(".")
        if head in ("pipeline", "compare"):
            out.add(head)
        elif head == "mufin" and rest and rest.split(".")[0] in RANK:
            out.add(rest.split(".")[0])
    return out - {layer(path)}


def layer_imports() -> list[str]:
    """`nn -> artifacts, corpus`: for each layer, from the bottom, the layers that it imports."""
    found: dict[str, set[str]] = {name: set() for names in LAYERS for name in names}
    for path in [*LIBRARY, *SCRIPTS]:
        if layer(path) in found:
            found[layer(path)] |= used_layers(path)
    order = sorted(RANK, key=RANK.__getitem__)
    return [f"{a} -> {', '.join(b for b in order if b in found[a]) or '(nothing)'}" for a in order]


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.parent != ROOT / "mufin"], ids=str)
def test_library_imports_only_lower_layers(path):
    assert all(RANK[name] < RANK[layer(path)] for name in used_layers(path)), used_layers(path)


@pytest.mark.parametrize("path", [*LIBRARY, *SCRIPTS], ids=str)
def test_only_scripts_cli_and_serving_touch_params_and_runtime(path):
    if layer(path) not in MAY_TOUCH and path.name != "__init__.py":
        assert not used_layers(path) & OF_SCRIPTS
        assert "typer" not in imports(path)


@pytest.mark.parametrize("path", LIBRARY, ids=str)
def test_the_library_imports_no_script(path):
    assert not used_layers(path) & {"pipeline", "compare"}


@pytest.mark.parametrize("stage", ORDER)
def test_no_stage_imports_another(stage):
    others = {
        f.stem for f in files_of(ROOT / f"pipeline/{stage}.py") if f.parent.name == "pipeline"
    }
    assert others - {"__init__"} == {stage}


def test_pipeline_holds_the_ten_stages_and_nothing_else():
    assert {p.stem for p in (ROOT / "pipeline").glob("*.py")} - {"__init__"} == set(ORDER)
    assert list(STAGES) == ORDER
    assert all(STAGES[s]["cmd"] == f"python -m pipeline.{s}" for s in ORDER)


def test_deps_and_packages_are_what_make_deps_writes():
    for path, text in deps.written().items():
        assert path.read_text() == text, f"{path.name} is stale: run `make deps`"


@pytest.mark.parametrize("stage", ORDER)
def test_deps_name_every_file_that_a_stage_runs_and_no_other(stage):
    """Read by a slow walk of its own: a folder stands for all its files."""
    declared: set[Path] = set()
    for dep in STAGES[stage]["deps"]:
        path = ROOT / dep
        if dep.split("/")[0] in ("mufin", "pipeline", "compare"):
            declared |= set(path.rglob("*.py")) if path.is_dir() else {path}
    inside = RUN_BY_FOLDS if stage == "folds" else ()  # by name, as the study runs variants
    expected = {file for name in (stage, *inside) for file in walked(f"pipeline.{name}")}
    assert declared == expected


def walked(module: str, seen: dict[str, Path] | None = None) -> list[Path]:
    """The files of a module and of what it imports outside of `if TYPE_CHECKING`."""
    seen = {} if seen is None else seen
    base = ROOT.joinpath(*module.split("."))
    file = next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.exists()), None)
    if file is None or module in seen:
        return list(seen.values())
    seen[module] = file
    if "." in module:
        walked(module.rpartition(".")[0], seen)
    for wanted in named(file):
        walked(wanted, seen)
    return list(dict.fromkeys(seen.values()))


@cache
def named(file: Path) -> list[str]:
    """What may be a module of the project in the imports of a file."""
    out = []
    text = re.sub(r"(?m)^if TYPE_CHECKING:\n(?:(?: {4}.*)?\n)+", "", file.read_text())
    for node in ast.walk(ast.parse(text)):
        names = (
            [a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        )
        head = getattr(node, "module", None)
        for name in names:
            out += (name,) if head is None else (head, f"{head}.{name}")
    return [name for name in out if name.split(".")[0] in ("mufin", "pipeline", "compare")]


@pytest.mark.parametrize("name", deps.PIPELINES)
def test_every_code_dep_is_a_path_from_its_dvc_yaml(name):
    file = ROOT / name
    stages = YAML(typ="safe").load(file.read_text())["stages"].values()
    code = [dep for stage in stages for dep in stage["deps"] if dep.endswith(".py")]
    assert code and [d for d in code if "${" not in d and not (file.parent / d).is_file()] == []


def test_a_changed_learning_rate_schedule_reruns_training_alone():
    """Type-only imports once made every later stage depend on the training loop."""
    users = {
        s for s in ORDER if ROOT / "mufin/training/loop.py" in files_of(ROOT / f"pipeline/{s}.py")
    }
    assert users == {"precompute", "pretrain", "finetune"}  # precompute: the start of E_V


def test_attention_code_does_not_rerun_precompute_and_search_code_not_finetune():
    runs = {
        s: {str(f.relative_to(ROOT)) for f in files_of(ROOT / f"pipeline/{s}.py")} for s in ORDER
    }
    assert "mufin/nn/attention.py" not in runs["precompute"]
    assert not any(f.startswith("mufin/retrieval") for f in runs["finetune"])
    assert not any(f.startswith("mufin/nn") for s in ("download", "curate") for f in runs[s])


def test_packages_of_a_stage_are_those_that_it_imports():
    packages = {
        s: next(p["packages.yaml"] for p in STAGES[s]["params"] if isinstance(p, dict))
        for s in ORDER
    }
    assert "torch" not in packages["download"] + packages["curate"]
    assert {"pillow", "torch", "timm", "transformers"} <= set(packages["precompute"])
    assert [s for s in ORDER if "chroma-hnswlib" in packages[s]] == [
        "retrieve",
        "index",
        "folds",
        "evaluate",
    ]


def test_architecture_prints_the_imports_between_layers():
    assert "\n".join(layer_imports()) in (ROOT / "docs/architecture.md").read_text()


def test_no_pickle_is_read_or_written_anywhere():
    for path in [*LIBRARY, *SCRIPTS]:
        text = path.read_text()
        if path != READER_OF_PICKLES:
            assert not re.search(r"import pickle\b", text), path
        assert "torch.save" not in text, path
        assert "allow_pickle=True" not in text, path
        assert "torch.load(" not in text or "weights_only=True" in text, path


if __name__ == "__main__":
    print("\n".join(layer_imports()))
