"""Module IV in a plan: updates of eta and alpha, and the scores of all labels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mufin.planning.finetune_stage import finetune
from mufin.planning.network import network_of
from mufin.planning.run import Run
from mufin.planning.sizes import sizes_of
from mufin.planning.work import Phase
from mufin.profiles import read_profile
from tests.planning.test_files import SMALL_MACHINE

GB = 1e9


def training(like: str, gpu: float, a_c: str = "attention", **changes) -> Phase:
    """The phase in which finetune trains, of profile mm-amazontitles-300k with `changes`."""
    params = read_profile("mm-amazontitles-300k")
    params = replace(params, transfer=replace(params.transfer, a_c=a_c))
    params = replace(params, finetune=replace(params.finetune, **changes))
    sizes = sizes_of(params, {}, {}, like)
    machine = replace(SMALL_MACHINE, gpu=gpu)
    stage = finetune(Run(params, sizes, network_of(params, sizes), machine))
    (phase,) = (phase for phase in stage.phases if phase.what == "train")
    return phase


def tables(phase: Phase) -> float:
    """Bytes of eta and alpha with what their optimiser keeps."""
    (size,) = (h.size for h in phase.held if h.what.startswith("eta and alpha"))
    return size


@pytest.mark.parametrize(
    "like, gpu, copies",
    [
        ("mm-amazontitles-300k", 24 * GB, 4),  # weights, gradient and two moments
        ("a2q-4m", 24 * GB, 3),  # weights and two moments
        ("a2q-4m", 80 * GB, 4),
        ("mm-amazontitles-300k", 0, 3),
    ],
)
def test_auto_updates_all_labels_where_they_fit(like, gpu, copies):
    phase = training(like, gpu, free_update="auto")
    labels = {"mm-amazontitles-300k": 303_296, "a2q-4m": 4_528_191}[like]
    assert tables(phase) == copies * labels * 193 * 4
    said = {work.what for work in phase.work}
    assert ("update all labels" in said) == (copies == 4)


def test_4_5_million_labels_train_within_24_gb():
    phase = training("a2q-4m", 24 * GB, free_update="auto", batch_size=64)
    assert sum(h.size for h in phase.held if h.on_device) < 24 * GB


def test_eta_in_bf16_takes_6_bytes_per_number():
    softmax = {"loss": "softmax", "candidates": "all", "batch_size": 128, "train_labels": False}
    phase = training("a2q-4m", 24 * GB, "none", **softmax, free_precision="bf16")
    labels = 4_528_191
    assert tables(phase) == labels * 192 * 6 + labels * 4 * 3
    assert sum(h.size for h in phase.held if h.on_device) < 24 * GB


def test_scores_of_all_labels_are_those_of_a_block():
    softmax = {"loss": "softmax", "candidates": "all", "train_encoders": False, "batch_size": 128}
    found = [
        {h.what: h.size for h in training("mm-amazontitles-300k", 80 * GB, **softmax, a_c=a_c).held}
        for a_c in ("attention", "none")
    ]
    table = 303_296 * 192 * 4
    assert all(2 * table < held["scores"] < 2 * table + 4 * GB for held in found)
