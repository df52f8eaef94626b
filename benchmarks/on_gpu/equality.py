"""Runs tests/test_cuda.py on this machine: the GPU must compute what the CPU computes."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.on_gpu.running import Row
from benchmarks.on_gpu.training import Place, Tell

ROOT = Path(__file__).resolve().parents[2]


def equality(at: Place, tell: Tell) -> None:
    """Outcomes of the tests, each of which runs on the GPU and on the CPU."""
    os.chdir(ROOT)
    # pytest's output goes to stderr, as standard output is for the table
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    counts = Counts(tell)
    end = pytest.main(
        [
            "tests/test_cuda.py",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={at.folder / 'pytest'}",
        ],
        plugins=[counts],
    )
    tell(Row(figure="tests/test_cuda.py: passed", value=counts.passed, unit="tests"))
    tell(
        Row(
            figure="tests/test_cuda.py: failed",
            value=counts.failed,
            unit="tests",
            aim=0,
            note="" if end in (0, 1) else f"pytest ended with {end!r}",
        )
    )
    tell(
        Row(
            figure="tests/test_cuda.py: skipped",
            value=counts.skipped.total(),
            unit="tests",
            note="; ".join(f"{count}: {reason}" for reason, count in counts.skipped.items()),
        )
    )


class Counts:
    """Counts outcomes, and reports a failure at once, as the part may be stopped before its end."""

    def __init__(self, tell: Tell):
        self.tell, self.passed, self.failed = tell, 0, 0
        self.skipped: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed += 1
            reason = str(report.longrepr).strip().splitlines()[-1][:200]
            self.tell(
                Row(
                    figure=f"failed: {report.nodeid.partition('::')[2]}"[:72],
                    value=1,
                    unit="test",
                    aim=0,
                    note=reason,
                )
            )
        elif report.skipped:
            self.skipped[report.longrepr[2].removeprefix("Skipped: ")] += 1
        elif report.when == "call":
            self.passed += 1
