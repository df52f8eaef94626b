"""Which packages a start imports: the command line no heavy one, a stage no model classes.

Seconds differ between machines, and imported modules do not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.support.projects import ROOT
from tests.test_structure import ORDER

MODELS = {"transformers", "timm", "torchvision", "tokenizers", "torch._dynamo"}
LEARNING = {"sklearn", "hnswlib", "scipy.optimize"}
TABLES = {"numpy", "scipy", "polars", "pyarrow", "openpyxl", "PIL"}
OTHERS = {"torch", "rich", "dvc", "requests", "jinja2", "psutil", "tqdm", "huggingface_hub"}
HEAVY = MODELS | LEARNING | TABLES | OTHERS

SCRIPT = """
import runpy, sys
for line in sys.stdin.read().splitlines():
    module, *sys.argv[1:] = line.split()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, end.code
    print()
    print("modules:", *sys.modules)
"""


def imported(*lines: str, home: Path = ROOT) -> list[set[str]]:
    """The modules that are imported after each `python -m line`, one after the other.

    One process saves starts: a package that is absent at the end is imported by no line.
    """
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input="\n".join(lines),
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("modules: ")]
    assert len(told) == len(lines)
    return [set(line.split()[1:]) for line in told]


def test_the_command_line_starts_without_heavy_packages():
    lines = [f"mufin.cli {words}" for words in ("--help", "--version", "check", "recommend --help")]
    for line, modules in zip(lines, imported(*lines), strict=True):
        assert not modules & HEAVY, line


def test_a_stage_starts_without_model_classes():
    lines = [f"pipeline.{stage} --help" for stage in ORDER]
    for line, modules in zip(lines, imported(*lines), strict=True):
        assert not modules & (MODELS | LEARNING | {"rich"}), line


def test_answers_for_catalog_products_need_no_model_classes(finished):
    """E_V is frozen and E_T is a BERT in the sample; both are replaced by what is light."""
    uid = pq.read_table(finished / "data/curated/products.parquet")["uid"][0].as_py()
    (modules,) = imported(f"mufin.cli recommend {uid}", home=finished)
    assert "torch" in modules and not modules & MODELS


def test_imported_modules_are_seen(tmp_path):
    (tmp_path / "uses.py").write_text("import numpy")
    (tmp_path / "light.py").write_text("import json")
    first, second = imported("light", "uses", home=tmp_path)
    assert "numpy" in second - first and "json" in first
