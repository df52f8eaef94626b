"""How good the learnt ranking is: variants of a profile over seeds, mean and spread on test.

python -m benchmarks.quality params.yaml --seeds 0 1 2 --variant "both:" --variant "text:encoder.modalities=[text]"

Each run is the whole pipeline in a folder of its own (under --work, kept, so that a killed run goes on; with other
settings or code it is refused); download and curate are shared.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ruamel.yaml import YAML

SHARED, OWN = (
    ("download", "curate"),
    ("precompute", "pretrain", "retrieve", "transfer", "finetune", "index", "evaluate"),
)
METRICS = ("P@1", "P@5", "R@10", "R@100")
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    args = _arguments()
    work = args.work.resolve()
    base = work / "shared"
    _settings(args.profile, args.set, base)
    _stages(base, SHARED)
    rows: dict[str, list[dict]] = {}
    for text in args.variant:
        name, _, changes = text.partition(":")
        if any(change.startswith(SHARED) for change in changes.split()):
            raise SystemExit(
                f"{changes}: download and curate are shared by all variants; change them by --set"
            )
        for seed in args.seeds:
            folder = work / f"{name}-{seed}"
            _settings(args.profile, [*args.set, *changes.split(), f"seed={seed}"], folder)
            for kind in ("raw", "curated"):
                (folder / "data").mkdir(exist_ok=True)
                if not (folder / "data" / kind).exists():
                    (folder / "data" / kind).symlink_to(base / "data" / kind)
            start = time.monotonic()
            _stages(folder, OWN)
            report = json.loads((folder / "metrics/evaluate.json").read_text())["test"]
            for method in filter(report.__contains__, args.method):  # no ridge, no row without it
                rows.setdefault(f"{name}, {method}", []).append(report[method])
            print(
                f"{name} seed {seed}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True
            )
    _tell(rows, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("profile", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--variant", action="append", required=True, help="name:section.key=value ..."
    )
    parser.add_argument("--method", nargs="+", default=["mufin", "mufin_chosen"])
    parser.add_argument("--set", nargs="*", default=[], help="section.key=value for every run")
    parser.add_argument("--work", type=Path, default=Path("scratch/quality"))
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _settings(profile: Path, changes: list[str], folder: Path) -> None:
    """`params.yaml` of a run: the profile with `section.key=value` changes."""
    yaml = YAML()
    content = yaml.load(profile.read_text())
    for change in changes:
        name, _, value = change.partition("=")
        *sections, key = name.split(".")
        section = content
        for part in sections:
            section = section[part]
        if key not in section:
            raise SystemExit(f"{name} is not a parameter of {profile}")
        section[key] = yaml.load(value)
    folder.mkdir(parents=True, exist_ok=True)
    with io.StringIO() as text:
        yaml.dump(content, text)
        wanted = text.getvalue()
    code = hashlib.sha256(
        b"".join(p.read_bytes() for p in sorted((ROOT / "pipeline").rglob("*.py")))
    ).hexdigest()
    for name, content in (("params.yaml", wanted), ("code.txt", code)):
        if (folder / name).exists() and (folder / name).read_text() != content:
            raise SystemExit(
                f"{folder} holds a run of other {name.split('.')[0]}; remove it or name another --work"
            )
        (folder / name).write_text(content)


def _stages(folder: Path, stages: tuple[str, ...]) -> None:
    """Run the stages in `folder`; one that ended well is not run again."""
    for stage in stages:
        if (folder / f"{stage}.done").exists():
            continue
        done = subprocess.run(
            [sys.executable, "-m", f"pipeline.{stage}"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        if done.returncode:
            raise SystemExit(f"{stage} failed in {folder}")
        (folder / f"{stage}.done").touch()
    shutil.rmtree(folder / "scratch", ignore_errors=True)


def _tell(rows: dict[str, list[dict]], args: argparse.Namespace) -> None:
    table = {
        name: {
            m: [
                statistics.mean(r[m] for r in runs),
                statistics.stdev(r[m] for r in runs) if len(runs) > 1 else 0.0,
            ]
            for m in METRICS
        }
        for name, runs in rows.items()
    }
    print(
        f"{args.profile.name}, test, seeds {' '.join(map(str, args.seeds))}: mean +- standard deviation"
    )
    print(f"{'':32s}" + "".join(f"{m:>16s}" for m in METRICS))
    for name, figures in table.items():
        print(
            f"{name:32s}"
            + "".join(f"{mean:9.2f} +-{spread:5.2f}" for mean, spread in figures.values())
        )
    if args.out:
        changes = [
            re.sub(r"(?<=[=:])/\S*/", "", change) for change in args.set
        ]  # no machine's folders in a result
        args.out.write_text(
            json.dumps(
                {
                    "profile": args.profile.name,
                    "seeds": args.seeds,
                    "changes": changes,
                    "variants": args.variant,
                    "machine": platform.processor() or platform.machine(),
                    "cores": os.cpu_count(),
                    "mean_and_spread": table,
                },
                indent=2,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
