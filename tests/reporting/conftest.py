"""A small run of the pipeline with a study beside it, made once for all tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from compare import report
from tests.reporting.study import HOSTILE, rename_products, write_study
from tests.support.stages import inside, run_stages

SHORT = {
    "pretrain.epochs": 2,
    "pretrain.batch_size": 32,
    "finetune.epochs": 2,
    "finetune.batch_size": 32,
}


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """The folder of the run: hostile titles and categories, a row that failed, and the report."""
    folder = tmp_path_factory.mktemp("run")
    with inside(folder, **SHORT):
        run_stages(folder)
        rename_products(
            folder, lambda t: f"{t} {HOSTILE}", lambda path: [p + " <b>&" for p in path]
        )
        write_study(folder)
        report.main(folder)
    return folder


@pytest.fixture(scope="session")
def page(home) -> str:
    return (home / "metrics/report.html").read_text()
