"""tests/test_cuda.py on this machine: what the GPU computes equals the CPU."""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.on_gpu.running import Row
from benchmarks.on_gpu.training import Place, Tell

ROOT = Path(__file__).resolve().parents[2]


def equality(at: Place, tell: Tell) -> None:
    """Runs the tests, those for the GPU and the same ones for the CPU."""
    report = at.folder / "tests.xml"
    os.chdir(ROOT)
    # what pytest prints goes to the log on stderr: standard output is for the table
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    pytest.main(["tests/test_cuda.py", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
                 f"--basetemp={at.folder / 'pytest'}"])
    cases = list(ET.parse(report).getroot().iter("testcase"))
    failed = [c.get("name") for c in cases if {child.tag for child in c} & {"failure", "error"}]
    reasons = Counter(skip.get("message") for case in cases for skip in case.iter("skipped"))
    tell(Row(figure="tests/test_cuda.py: passed", unit="tests",
             value=len(cases) - len(failed) - reasons.total()))
    tell(Row(figure="tests/test_cuda.py: failed", value=len(failed), unit="tests", aim=0,
             note=", ".join(failed)))
    tell(Row(figure="tests/test_cuda.py: skipped", value=reasons.total(), unit="tests",
             note="; ".join(f"{count}: {reason}" for reason, count in reasons.items())))
