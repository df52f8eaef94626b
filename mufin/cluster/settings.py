"""The cluster that the environment names:

MUFIN_RAY_ADDRESS   auto, or host:port of Ray's head node   default: none, all runs on this machine
MUFIN_RAY_STORE     URI of a folder that all machines see   s3://bucket/folder, gs://..., file://...
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from mufin.cluster.store import VARIABLE, Store
from mufin.errors import MufinError, shown

ADDRESS = "MUFIN_RAY_ADDRESS"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a run's parts are made."""

    address: str  # auto, or host:port
    store: Store


def cluster() -> Cluster | None:
    """The cluster of the environment; None where all runs on this machine.

    Raises MufinError if a variable cannot be used.
    """
    if (address := os.environ.get(ADDRESS)) is None:
        return None
    if not re.fullmatch(r"auto|[\w.-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\]:[0-9]{1,5}", address):
        raise MufinError(
            f"{ADDRESS} is {shown(address)}; set it to auto or to host:port of the head node, such "
            "as 10.0.0.1:6379, or unset it"
        )
    if not (uri := os.environ.get(VARIABLE)):
        raise MufinError(
            f"{ADDRESS} is set and {VARIABLE} is not; set it to a folder that all machines see, "
            "such as s3://bucket/folder or file:///mnt/shared"
        )
    return Cluster(address, Store(uri))
