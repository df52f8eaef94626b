"""The head of the report: catalog, commit and profile in words."""

from __future__ import annotations

import subprocess
from pathlib import Path

from mufin.reporting import provenance

SAMPLE = {"seed": 0, "download": {"source": "sample", "columns": {"id": "ASIN"}}, "options": {}}


def test_the_catalog_is_its_source_and_location():
    assert provenance.catalog("sample", None) == "the built-in sample"
    assert provenance.catalog("catalog", "a.csv") == "catalog: a.csv"
    assert provenance.catalog("catalog", ["a.csv", "b.csv"]) == "catalog: a.csv, b.csv"
    assert provenance.catalog("mm-amazontitles", None) == "mm-amazontitles: the released files"


def test_secrets_of_a_url_are_not_named():
    url = "https://me:secret@example.org:8080/a/b.csv?token=secret#secret"
    assert provenance.catalog("catalog", url) == "catalog: https://example.org:8080/a/b.csv"


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_commit_says_whether_code_or_settings_differ(tmp_path):
    assert provenance.commit(tmp_path).startswith("none")
    (tmp_path / "metrics").mkdir()
    for name in ("params.yaml", "dvc.lock", "metrics/evaluate.json"):
        (tmp_path / name).write_text("a")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    head = git(tmp_path, "rev-parse", "--short=10", "HEAD")
    assert provenance.commit(tmp_path) == head
    for name in ("dvc.lock", "metrics/evaluate.json"):  # what a run itself writes
        (tmp_path / name).write_text("b")
    assert provenance.commit(tmp_path) == head
    (tmp_path / "params.yaml").write_text("b")
    assert provenance.commit(tmp_path) == f"{head} with uncommitted changes"


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit(tmp_path).startswith("none")


def test_the_profile_is_the_nearest_with_the_changed_settings():
    other = {**SAMPLE, "seed": 7, "options": {"depth": 2, "heads": 3}}
    profiles = {"paper": other, "sample": SAMPLE}
    assert provenance.profile(SAMPLE, profiles) == "sample"
    changed = {**SAMPLE, "download": {"source": "catalog", "columns": {"id": "ASIN"}}}
    assert provenance.profile(changed, profiles) == "sample, 1 setting changed: download.source"
    changed = {**other, "options": {}}
    assert provenance.profile(changed, profiles) == "sample, 1 setting changed: seed"
    assert provenance.profile({**other, "seed": 8}, profiles) == "paper, 1 setting changed: seed"


def test_many_changed_settings_are_counted():
    settings = {str(n): n for n in range(9)}
    said = provenance.profile(settings, {"a": dict.fromkeys(settings, -1)})
    assert said == "a, 9 settings changed: 0, 1, 2, 3, 4, 5 and 3 more"
