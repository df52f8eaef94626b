"""Forty kills (SIGKILL) over all ten stages: the end is as if there had been none."""

from __future__ import annotations

import json
import subprocess
import sys

from mufin.corpus.sample import sample_catalog
from tests.support.catalogs import Shelf
from tests.support.projects import ROOT, environment
from tests.support.servers import Server, serving

KILLS, SEED = 40, 0


def test_forty_kills_leave_the_bytes_of_an_unbroken_run(tmp_path):
    rows, pictures, _ = sample_catalog(140, 0)
    server = Server(Shelf)
    server.files = {f"/{name}": content for name, content in pictures.items()}
    server.tag = "all"
    catalog = tmp_path / "catalog.jsonl"
    for row in rows:
        row["images"] = [server.url(f"/{name}") for name in row["images"]]
    catalog.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(server):
        done = subprocess.run(
            [sys.executable, "-m", "tests.attack.killed_stages", tmp_path, str(SEED), str(KILLS)],
            cwd=ROOT,
            env=environment(PYTHONPATH=str(ROOT), MUFIN_CHECKPOINT_SECONDS="0"),
            capture_output=True,
            text=True,
            timeout=300,
            start_new_session=True,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found.pop("files") > 80
    assert found == {"kills": KILLS, "different": [], "torn": [], "left": [], "processes": []}
