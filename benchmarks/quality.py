"""How good the learnt ranking is: variants of a profile over seeds, mean and spread on test.

python -m benchmarks.quality params.yaml --seeds 0 1 2 --variant "both:" --variant "text:encoder.modalities=[text]"

Each run is the whole pipeline in a folder of its own (under --work, kept, so that a killed run goes on; with other
settings or code it is refused); download and curate are shared. `--bonsai` adds omikuji's Bonsai on TF-IDF titles of the
same split, five times (pip install -e '.[baselines]'), `--frozen-ridge` a closed-form one-vs-all on the first run's frozen
descriptors and TF-IDF titles, its penalty chosen on valid.
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

SHARED, OWN = ("download", "curate"), ("precompute", "pretrain", "retrieve", "transfer", "finetune", "index", "evaluate")
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
            raise SystemExit(f"{changes}: download and curate are shared by all variants; change them by --set")
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
            for method in filter(report.__contains__, args.method):           # no ridge, no row without it
                rows.setdefault(f"{name}, {method}", []).append(report[method])
            print(f"{name} seed {seed}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    if args.bonsai:
        rows["Bonsai (omikuji)"] = [bonsai(base / "data/curated") for _ in range(5)]       # it draws its trees without a seed
    if args.frozen_ridge:
        rows["ridge, frozen + TF-IDF"] = [frozen_ridge(work / f"{args.variant[0].partition(':')[0]}-{args.seeds[0]}")]
    _tell(rows, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variant", action="append", required=True, help="name:section.key=value ...")
    parser.add_argument("--method", nargs="+", default=["mufin", "mufin_chosen"])
    parser.add_argument("--set", nargs="*", default=[], help="section.key=value for every run")
    parser.add_argument("--work", type=Path, default=Path("scratch/quality"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bonsai", action="store_true")
    parser.add_argument("--frozen-ridge", action="store_true", help="needs both encoders wholly frozen")
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
    code = hashlib.sha256(b"".join(p.read_bytes() for p in sorted((ROOT / "pipeline").rglob("*.py")))).hexdigest()
    for name, content in (("params.yaml", wanted), ("code.txt", code)):
        if (folder / name).exists() and (folder / name).read_text() != content:
            raise SystemExit(f"{folder} holds a run of other {name.split('.')[0]}; remove it or name another --work")
        (folder / name).write_text(content)


def _stages(folder: Path, stages: tuple[str, ...]) -> None:
    """Run the stages in `folder`; one whose metrics are there has been run."""
    for stage in stages:
        if (folder / f"metrics/{stage}.json").exists():
            continue
        done = subprocess.run([sys.executable, "-m", f"pipeline.{stage}"], cwd=folder, stdout=subprocess.DEVNULL,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        if done.returncode:
            raise SystemExit(f"{stage} failed in {folder}")
    shutil.rmtree(folder / "scratch", ignore_errors=True)


def bonsai(curated: Path) -> dict[str, float]:
    """Bonsai as PEERS has it: omikuji, unbalanced 100-means, depth 3, on TF-IDF titles; judged like everything else."""
    import tempfile

    import numpy as np
    import omikuji
    import pyarrow.parquet as pq
    from sklearn.feature_extraction.text import TfidfVectorizer

    from pipeline.inputs import read_curated
    from pipeline.xc_metrics import evaluate

    data = read_curated(curated)
    titles = np.array(pq.read_table(curated / "products.parquet")["title"].to_pylist(), dtype=object)
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b").fit(titles[data.train.product])
    train, test = (vectorizer.transform(titles[data.splits[n].product]) for n in ("train", "test"))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(f"{train.shape[0]} {train.shape[1]} {len(data.labels)}\n")
        for row in range(train.shape[0]):
            features = " ".join(f"{i}:{v:.6f}" for i, v in zip(train[row].indices, train[row].data))
            file.write(",".join(map(str, data.train.labels[row])) + " " + features + "\n")
        file.flush()
        settings = omikuji.Model.default_hyper_param()
        settings.cluster_balanced, settings.cluster_k, settings.max_depth = False, 100, 3
        model = omikuji.Model.train_on_data(file.name, settings)
    predictions = np.full((test.shape[0], 100), -1, np.int64)
    for row in range(test.shape[0]):
        found = model.predict(list(zip(test[row].indices.tolist(), test[row].data.tolist())), top_k=100)
        predictions[row, :len(found)] = [label for label, _ in found]
    split = data.splits["test"]
    counts = np.bincount(data.train.labels.values, minlength=len(data.labels))
    return evaluate(predictions, split.labels, split.excluded, counts, len(data.train), (0.6, 2.6))


def frozen_ridge(run: Path) -> dict[str, float]:
    """Ridge one-vs-all on [title descriptor, mean image descriptor, TF-IDF title], each of unit norm."""
    import numpy as np
    from scipy.sparse import csr_matrix, hstack

    from pipeline.inputs import read_curated
    from pipeline.xc_metrics import evaluate

    data = read_curated(run / "data/curated")
    features = _descriptors(run, data.train.product)
    counts = np.bincount(data.train.labels.values, minlength=len(data.labels))
    relevance = csr_matrix((np.ones(len(data.train.labels.values)), data.train.labels.values, data.train.labels.offsets),
                           (len(data.train), len(data.labels))).toarray()
    x = hstack([csr_matrix(f[data.train.product]) for f in features]).tocsr()
    kernel, found = (x @ x.T).toarray(), {}
    for penalty in (0.1, 0.3, 1.0, 3.0, 10.0):
        weights = x.T @ np.linalg.solve(kernel + penalty * np.eye(len(kernel)), relevance - relevance.mean(0))
        judged = {}
        for name in ("valid", "test"):
            split = data.splits[name]
            scores = hstack([csr_matrix(f[split.product]) for f in features]).tocsr() @ weights + relevance.mean(0)
            scores[split.excluded.rows(), split.excluded.values] = -np.inf
            order = np.argsort(-scores, axis=1, kind="stable")[:, :100]
            judged[name] = evaluate(order, split.labels, split.excluded, counts, len(data.train), (0.6, 2.6))
        found[penalty] = judged
    return max(found.values(), key=lambda j: j["valid"]["P@1"] + j["valid"]["P@5"] + j["valid"]["R@10"])["test"]


def _descriptors(run: Path, train) -> list:
    """Title descriptors, mean image descriptors and TF-IDF titles of all products, rows of unit norm or zero."""
    import numpy as np
    import pyarrow.parquet as pq
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    folder = run / "data/precomputed"
    images = np.concatenate([np.load(p).astype(np.float64) for p in sorted(folder.glob("image_inputs-*.npy"))])
    offsets, rows = np.load(folder / "image_offsets.npy"), np.load(folder / "image_rows.npy")
    mean = normalize(csr_matrix((np.ones(len(rows)), rows, offsets), (len(offsets) - 1, len(images))), norm="l1") @ images
    text = np.load(folder / "text_inputs.npy").astype(np.float64) * (np.load(folder / "token_lengths.npy") > 0)[:, None]
    titles = np.array(pq.read_table(run / "data/curated/products.parquet")["title"].to_pylist(), dtype=object)
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b").fit(titles[train]).transform(titles)
    return [normalize(text), normalize(mean), words]


def _tell(rows: dict[str, list[dict]], args: argparse.Namespace) -> None:
    table = {name: {m: [statistics.mean(r[m] for r in runs), statistics.stdev(r[m] for r in runs) if len(runs) > 1 else 0.0]
                    for m in METRICS} for name, runs in rows.items()}
    print(f"{args.profile.name}, test, seeds {' '.join(map(str, args.seeds))}: mean +- standard deviation")
    print(f"{'':32s}" + "".join(f"{m:>16s}" for m in METRICS))
    for name, figures in table.items():
        print(f"{name:32s}" + "".join(f"{mean:9.2f} +-{spread:5.2f}" for mean, spread in figures.values()))
    if args.out:
        changes = [re.sub(r"(?<=[=:])/\S*/", "", change) for change in args.set]      # no machine's folders in a result
        args.out.write_text(json.dumps({"profile": args.profile.name, "seeds": args.seeds, "changes": changes,
                                        "variants": args.variant, "machine": platform.processor() or platform.machine(),
                                        "cores": os.cpu_count(), "mean_and_spread": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
