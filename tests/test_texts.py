"""Every make target, command, module, setting and file that a text of the project names exists."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from compare import fitb, splits
from mufin import cli
from mufin.code import ROOT
from mufin.params import Params

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SOURCES = sorted(
    p for d in ("mufin", "pipeline", "compare", "benchmarks") for p in (ROOT / d).rglob("*.py")
)
CODE = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
# written by stages, by the study or by benchmarks
PRODUCED = (
    "data/",
    "models/",
    "metrics/",
    "scratch/",
    "benchmarks/results/",
    "compare/results/",
    "compare/splits/",
    "compare/fitb/",
    "compare/plots/",
)
SUFFIXES = (
    ".py",
    ".md",
    ".yaml",
    ".yml",
    ".toml",
    ".txt",
    ".json",
    ".csv",
    ".html",
    ".parquet",
    ".lock",
    ".svg",
    ".png",
)


def code_of_pages() -> Iterator[tuple[str, str]]:
    """(page, code) of each code block and each word in backticks."""
    for page in PAGES:
        for block, words in CODE.findall(page.read_text()):
            yield page.name, block or words


@cache
def code_of_sources() -> list[tuple[str, str]]:
    """(file, code) of what stands in backticks in the strings of the sources, error texts and
    docstrings alike.
    """
    out = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for _, words in CODE.findall(node.value):
                    out.append((str(path.relative_to(ROOT)), words))
    return out


def found(pattern: str) -> dict[str, str]:
    """{what the pattern's group matched: where} over all texts."""
    return {
        match: where
        for where, code in (*code_of_pages(), *code_of_sources(), *code_of_other_files())
        for match in re.findall(pattern, code, re.MULTILINE)
    }


def code_of_other_files() -> Iterator[tuple[str, str]]:
    for name in ("Makefile", ".ci/run", ".ci/experiment", "params.yaml"):
        if (ROOT / name).exists():
            yield name, (ROOT / name).read_text()


TARGETS = found(r"(?:^|[`\s(])make ([a-z][a-z-]+)(?=$|[\s`;,)])")
COMMANDS = found(r"(?:^|[\n#] ?)mufin ([a-z][a-z-]*)\b")
MODULES = found(r'(?:\)"?|python3?|torchrun[^\n]*) -m ([\w.]+\.[\w.]*\w)')
REPROS = found(r"dvc repro (?:-f )?(?:-s )?([a-z]+)\b")


def test_texts_were_found():
    assert {"repro", "test", "compare", "bench-gpu"} <= set(TARGETS)
    assert {"use", "check", "recommend"} <= set(COMMANDS)
    assert {"pipeline.pretrain", "benchmarks.gpu"} <= set(MODULES)


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"sure", "would"}))
def test_a_make_target_has_a_recipe(target):
    words = ["make", "-n", "-B", target, f"PYTHON={sys.executable}"]  # else make looks for one
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip(), (TARGETS[target], done.stderr)
    assert "Nothing to be done" not in done.stdout


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_mufin_command_exists(command):
    known = {c.name or c.callback.__name__ for c in cli.app.registered_commands}
    assert command in known, COMMANDS[command]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_to_run_exists(module):
    path = ROOT.joinpath(*module.split("."))
    ours = module.split(".")[0] in ("mufin", "pipeline", "compare", "benchmarks", "tests")
    assert not ours or path.with_suffix(".py").exists() or (path / "__main__.py").exists(), MODULES[
        module
    ]


@pytest.mark.parametrize("stage", sorted(REPROS))
def test_a_stage_to_reproduce_exists(stage):
    assert any(stage in stages for stages in stages_of().values()), REPROS[stage]


@cache
def stages_of() -> dict[Path, dict]:
    """{dvc.yaml: its stages} of both pipelines."""
    files = (ROOT / "dvc.yaml", ROOT / "compare/dvc.yaml")
    return {file: YAML(typ="safe").load(file.read_text())["stages"] for file in files}


def outs() -> list[str]:
    """All outs of both pipelines, as paths from the main folder; a name with ${...} up to there."""
    names = []
    for file, stages in stages_of().items():
        for stage in stages.values():
            for out in stage["outs"]:
                name = (next(iter(out)) if isinstance(out, dict) else out).partition("$")[0]
                place = file.parent.relative_to(ROOT) / name
                names.append(os.path.normpath(place))
    return names


def paths() -> dict[str, str]:
    """Backticked words of the pages that look like a file or folder of the project, and links."""
    out = {}
    for where, code in code_of_pages():
        if (
            "\n" not in code
            and re.fullmatch(r"[\w./*{},<>@-]+", code)
            and "/" in code
            and "://" not in code
        ):
            if code.endswith(SUFFIXES) or code.endswith("/") or code.startswith(PRODUCED):
                out[code] = where
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text()):
            out[str((page.parent / link).resolve().relative_to(ROOT))] = page.name
    return out


@pytest.mark.parametrize("path", sorted(paths()))
def test_a_named_file_exists_or_is_an_out(path):
    if path.startswith(PRODUCED):
        stem = re.split(r"[<*{]", path)[0]
        known = [*outs(), "scratch/", "benchmarks/results/", "compare/results", "compare/plots"]
        known += [splits.PLACE, splits.TABLE, fitb.PLACE, fitb.TABLE]
        assert any(stem.startswith(k) or k.startswith(stem) for k in known), paths()[path]
        return
    options = [
        path.replace(f"{{{group}}}", one)
        for group in re.findall(r"\{([^}]*)\}", path)
        for one in group.split(",")
    ]
    for name in options or [path]:
        bare = re.sub(r"<[^>]*>", "*", name)
        places = [ROOT, ROOT / "mufin"]  # architecture.md names files of the library from there
        assert any(list(place.glob(bare.rstrip("/"))) for place in places), paths()[path]


def settings(kind: type = Params, prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings and sections."""
    for name, hint in typing.get_type_hints(kind).items():
        yield prefix + name
        if dataclasses.is_dataclass(hint):
            yield from settings(hint, f"{prefix}{name}.")


def test_settings_that_texts_name_exist():
    known = set(settings())
    sections = {name.split(".")[0] for name in known if "." in name}
    pattern = rf"(?<![\w./-])((?:{'|'.join(sorted(sections))})\.[a-z_]+(?:\.[a-z_]+)*)\b(?![/(])"
    texts = [(w, c) for w, c in (*code_of_pages(), *code_of_sources())]
    for where, code in texts:
        for name in re.findall(pattern, code):
            if not name.endswith(SUFFIXES) and name.split(".")[1] not in (
                "parquet",
                "main",
                "safetensors",
            ):
                assert name in known or name.rpartition(".")[0] in known, (where, name)
