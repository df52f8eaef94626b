"""The house: arrows go down, and dvc.yaml knows every file that a stage imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
ORDER = [
    "download",
    "curate",
    "precompute",
    "pretrain",
    "retrieve",
    "transfer",
    "finetune",
    "index",
    "evaluate",
]
PACKAGES = ("corpus", "nn", "training", "ann", "baselines", "analysis")
FORBIDDEN = {"pipeline.params", "pipeline.artifacts", "pipeline.runtime", "typer", "pipeline.cli"}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, `pipeline.x.y` for our own files."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {
                f"{node.module}.{a.name}" for a in node.names if file_of(f"{node.module}.{a.name}")
            }
    return found


def file_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()), None)


def closure(path: Path) -> set[str]:
    seen: set[str] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        if (name := str(current.relative_to(ROOT))) in seen:
            continue
        seen.add(name)
        for module in imports(current):
            parts = module.split(".")
            if parts[0] == "pipeline":
                todo += [f for n in range(1, len(parts) + 1) if (f := file_of(".".join(parts[:n])))]
    return seen


@pytest.mark.parametrize("stage", ORDER)
def test_deps_are_exactly_the_files_that_the_stage_imports(stage):
    declared = {d for d in STAGES[stage]["deps"] if d.endswith(".py")}
    assert declared == closure(ROOT / f"pipeline/{stage}.py")


def test_stages_are_the_nine_in_their_order_run_as_modules():
    assert list(STAGES) == ORDER
    assert all(STAGES[s]["cmd"] == f"python -m pipeline.{s}" for s in ORDER)


@pytest.mark.parametrize(
    "path", sorted(p for d in PACKAGES for p in (ROOT / "pipeline" / d).glob("*.py")), ids=str
)
def test_packages_touch_no_params_artifacts_runtime_or_typer(path):
    assert not imports(path) & FORBIDDEN


LEVELS = {
    "nn": {"nn"},
    "ann": {"ann"},
    "corpus": {"corpus"},
    "baselines": {"baselines"},
    "training": {"training", "nn"},
    "analysis": {"analysis"},
}


@pytest.mark.parametrize(
    "path", sorted(p for d in PACKAGES for p in (ROOT / "pipeline" / d).glob("*.py")), ids=str
)
def test_no_package_imports_one_above_it(path):
    packages = {
        m.split(".")[1]
        for m in imports(path)
        if m.startswith("pipeline.") and m.split(".")[1] in PACKAGES
    }
    assert packages <= LEVELS[path.parent.name]


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline/nn").glob("*.py")), ids=str)
def test_nn_imports_nothing_of_ours_but_nn_and_errors(path):
    ours = {m for m in imports(path) if m.startswith("pipeline.")}
    assert all(m.startswith(("pipeline.nn", "pipeline.errors")) for m in ours), ours


def test_no_pickle_is_read_or_written_anywhere():
    for path in (ROOT / "pipeline").rglob("*.py"):
        text = path.read_text()
        assert (
            "import pickle" not in text
            and "torch.save" not in text
            and "allow_pickle=True" not in text
        ), path
        assert "torch.load(" not in text or "weights_only=True" in text, path


def test_no_host_of_a_registry_and_no_machine_path_is_in_the_repository():
    for path in [
        ROOT / "constraints.txt",
        ROOT / "pyproject.toml",
        ROOT / "Makefile",
        ROOT / "README.md",
    ]:
        text = path.read_text()
        assert "://" not in text or path.name == "README.md"
        assert "/work/" not in text and "file:" not in text
