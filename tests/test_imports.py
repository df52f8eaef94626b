"""Which packages a start imports: the command line no heavy one, a stage no model classes.

Seconds differ between machines, and imported modules do not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.projects import ROOT
from tests.test_structure import ORDER

MODELS = {"transformers", "timm", "torchvision", "tokenizers", "torch._dynamo"}
LEARNING = {"sklearn", "hnswlib", "scipy.optimize"}
TABLES = {"numpy", "scipy", "polars", "pyarrow", "openpyxl", "PIL"}
OTHERS = {"torch", "rich", "dvc", "requests", "jinja2", "psutil", "tqdm", "huggingface_hub"}
HEAVY = MODELS | LEARNING | TABLES | OTHERS

SCRIPT = """
import runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
print()
print(*sys.modules)
"""


def imported(module: str, *words: str, home: Path = ROOT) -> set[str]:
    """The modules that `python -m module words` has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, module, *words],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["check"], ["recommend", "--help"]])
def test_the_command_line_starts_without_heavy_packages(words):
    assert not imported("mufin.cli", *words) & HEAVY


@pytest.mark.parametrize("stage", ORDER)
def test_a_stage_starts_without_model_classes(stage):
    assert not imported(f"pipeline.{stage}", "--help") & (MODELS | LEARNING | {"rich"})


def test_answers_for_catalog_products_need_no_model_classes(finished):
    """E_V is frozen and E_T is a BERT in the sample; both are replaced by what is light."""
    uid = pq.read_table(finished / "data/curated/products.parquet")["uid"][0].as_py()
    modules = imported("mufin.cli", "recommend", uid, home=finished)
    assert "torch" in modules and not modules & MODELS


def test_imported_modules_are_seen(tmp_path):
    (tmp_path / "uses.py").write_text("import numpy")
    assert "numpy" in imported("uses", home=tmp_path)
