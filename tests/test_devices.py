"""Settings of the device, and what holds on a GPU or with several processes, tested on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mufin import devices, process_group
from mufin.errors import MufinError
from mufin.training import losses
from tests.support.training import machine, pretraining

MACHINE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
MACHINE += ("MUFIN_DEVICE", "MUFIN_PRECISION", "MUFIN_DETERMINISTIC", "CUBLAS_WORKSPACE_CONFIG")


@pytest.fixture
def bare(monkeypatch) -> Iterator[None]:
    """No setting of the device; torch's own are as before afterwards."""
    for name in MACHINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)


@pytest.mark.parametrize(
    "device, setting, wanted",
    [("cpu", None, 2), ("cpu", "1", 2), ("cpu", "0", 0), ("cuda", None, 0), ("cuda", "1", 2)],
)
def test_a_cpu_is_deterministic_by_default_and_cuda_on_request(
    bare, monkeypatch, device, setting, wanted
):
    if setting is not None:
        monkeypatch.setenv("MUFIN_DETERMINISTIC", setting)
    devices._set_determinism(torch.device(device))
    assert torch.get_deterministic_debug_mode() == wanted
    assert not torch.utils.deterministic.fill_uninitialized_memory
    cublas = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    assert cublas == (":4096:8" if (device, wanted) == ("cuda", 2) else None)


def test_a_cublas_setting_of_the_user_stays(bare, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setenv("MUFIN_DETERMINISTIC", "1")
    devices._set_determinism(torch.device("cuda"))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize(
    "name, value",
    [
        ("MUFIN_DEVICE", v)
        for v in ("meta", "mps", "xla", "", "cpu:0", "cuda:-1", "cuda:999", " cpu")
    ]
    + [("MUFIN_DEVICE", "x" * 10_000), ("MUFIN_DEVICE", "\x1b[31m")]
    + [("MUFIN_PRECISION", v) for v in ("", "fp16", "FP32")]
    + [("MUFIN_DETERMINISTIC", v) for v in ("", "yes", "2", "-1")]
    + [("MUFIN_WORKERS", v) for v in ("0", "many")],
)
def test_a_bad_setting_of_the_device_is_one_sentence(bare, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(MufinError, match=f"^{name} is '.*; ") as error:
        devices.precision()
    assert len(str(error.value)) <= 300 and str(error.value).isprintable()


def test_a_gpu_that_is_not_there_is_one_sentence(bare, monkeypatch):
    monkeypatch.setenv("MUFIN_DEVICE", "cuda:63")
    with pytest.raises(MufinError, match=r"MUFIN_DEVICE is 'cuda:63' and torch sees \d+ GPU"):
        devices.device()


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'; set it to a whole number from 1 to"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'; "),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2 and RANK is not set; start the stage with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "MASTER_ADDR is not set"),
        (
            {"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
            "RANK is 'x'; set it to a whole number from 0 to 999999, as torchrun does",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
            "RANK is 2 and WORLD_SIZE 2; ",
        ),
    ],
)
def test_processes_that_torchrun_did_not_start_are_one_sentence(bare, monkeypatch, settings, said):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MufinError, match=said):
        process_group.start(torch.device("cpu"))
    assert not torch.distributed.is_initialized()


def test_module_one_scores_are_float32_under_bf16(tmp_path, monkeypatch):
    job, _ = pretraining(machine(tmp_path / "a", 1e9))
    seen, triplet = [], losses.triplet
    monkeypatch.setattr(
        losses, "triplet", lambda *a: (seen.extend(t.dtype for t in a[:2]), triplet(*a))[1]
    )
    with torch.autocast("cpu", torch.bfloat16):
        job.loss(job.prepare(job.plan(0)[0], np.random.default_rng(0)))
    assert seen == [torch.float32, torch.float32]
