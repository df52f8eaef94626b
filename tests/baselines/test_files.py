"""The folder of the baselines: every file has the function that the study calls."""

from __future__ import annotations

import importlib
import inspect

import pytest

from mufin.baselines.shared.task import Task
from mufin.ragged import Lists
from tests.support.projects import ROOT

NAMES = sorted(p.stem for p in (ROOT / "mufin/baselines").glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_a_baseline(name):
    function = importlib.import_module(f"mufin.baselines.{name}").baseline
    parameters = list(inspect.signature(function).parameters.values())
    assert [p.name for p in parameters[:2]] == ["task", "seed"]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[2:])
    assert function.__doc__


def test_descriptors_are_computed_once_and_when_asked_for():
    calls = []

    def encode():
        calls.append(1)
        return {"train": {}}

    none = {name: Lists.of_rows([[]]) for name in ("train", "valid", "test")}
    titles = {name: ["a"] for name in ("train", "valid", "test", "labels")}
    task = Task(titles, {"train": Lists.of_rows([[0]]), "valid": none["valid"]}, none, encode)
    assert not calls
    assert task.descriptors is task.descriptors and len(calls) == 1
