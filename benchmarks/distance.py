"""Splits the distance between MUFIN and the ceiling of the built-in sample.

python -m benchmarks.distance --home . --out benchmarks/results/distance.json    (after `dvc repro`)

The ceiling is a softmax over all labels that is bilinear in the generator's kind, motif and house
of datapoint and label, with free weights per label (mufin/baselines/shared/ceilings.py). Tables, in
percent, all on test:
1. Accuracy of linear probes that are trained on the train datapoints and read each attribute from
   what the networks make of a product.
2. The ceiling's scores, where a datapoint's true attributes are replaced by what a probe reads (the
   probabilities of the values): one attribute at a time, or all.
3. Accuracy of the same probes on the vectors of labels, trained on some labels and read from
   others: a label's own attributes, and those that it wants of datapoints, which are hidden.
4. One side from the network. Datapoint side: the true attributes, or a linear map of x^1. Label
   side: what the ceiling learnt of each label (its wanted values among it), or a linear map of
   z^1_l or w_l of the fine-tuned network. A map is trained on train by a softmax over all labels
   with a free bias per label, all else fixed.
5. The distance: from the ceiling to the run's predictions in steps, each with one part more of the
   network. It is an account by these models; a reader or a map that is not linear may do better.
All penalties are chosen on valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.attribute_probes import Scale, network_vectors, probe
from benchmarks.timing import machine
from mufin import devices, runtime
from mufin.artifacts.curated import Split, read_curated
from mufin.artifacts.files import read_json, write_json
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.tables import read_ranking, read_table
from mufin.baselines import ceiling
from mufin.baselines.shared.bilinear_softmax import BilinearSoftmax, Penalties, fitted
from mufin.baselines.shared.ceilings import (
    ATTRIBUTES,
    WANTED,
    best_model,
    chosen,
    one_hot,
    ranked,
)
from mufin.baselines.shared.loading import task_of
from mufin.baselines.shared.task import Task
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.sample import invent_world
from mufin.corpus.sample_attributes import VALUES
from mufin.nn.assembly import load_members
from mufin.params import load_params
from mufin.ranking.label_index import load_index
from mufin.ranking.mix import merit

SPLITS = ("train", "valid", "test")
PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # of a linear map of standardised vectors
# of the datapoint side: what both networks make of a product, by network
SOURCES = (("X^0, all", "Module I"), ("x^1", "Module I"), ("x^1", "fine-tuned"))
NETWORKS = {"Module I": "models/pretrain", "fine-tuned": "models/finetune"}

Vectors = dict[str, np.ndarray]  # split -> (n, width)
Table = dict[str, dict[str, float]]  # row -> column -> figure in percent


@dataclass(frozen=True, slots=True)
class Sample:
    """The sample with its ceiling."""

    task: Task
    test: Split
    codes: dict[str, dict[str, np.ndarray]]  # split -> attribute -> (n,)
    true: Vectors  # one_hot of all attributes
    labels: np.ndarray  # (L, A) the same of the labels
    ceiling: BilinearSoftmax

    def figures(self, scores: np.ndarray) -> dict[str, float]:
        """P@1, P@5 and R@10 on test of `scores` (n, L)."""
        labels = ranked(scores, self.test.excluded)[0]
        return merit(labels, self.test.labels, self.test.excluded)


def main(home: runtime.Home = Path("."), out: Annotated[Path | None, typer.Option()] = None):
    """Print the tables of a finished run in `home`; with `out` write them as JSON."""
    sample = _sample(home)
    vectors = _vectors(home)
    accuracies, read = probed(sample, vectors)
    labels = _label_vectors(home, sample)
    scores, sides = rescored(sample, read), _sides(sample, vectors, labels)
    tables = {
        "accuracy of probes": accuracies,
        "ceiling, attributes as probes read them": scores,
        "accuracy of probes on labels": probed_labels(labels, _label_codes(home, sample)),
        "one side from the network": sides,
        "the distance": _steps(sample, scores, sides, _predicted(home, sample)),
    }
    for title, table in tables.items():
        print("\n".join(["", title, *lines(table)]))
    if out:
        write_json({"machine": machine(), "datapoints": len(sample.test), "tables": tables}, out)


def _sample(home: Path) -> Sample:
    """Raises MufinError if the data are not the built-in sample."""
    task = task_of(
        home / "data/curated", home / "data/precomputed", devices.device(), devices.precision()
    )
    sides = task.attributes()
    true = {name: one_hot(sides[name].codes) for name in SPLITS}
    labels = one_hot(sides["labels"].codes)
    return Sample(
        task,
        read_curated(home / "data/curated").splits["test"],
        {name: sides[name].codes for name in SPLITS},
        true,
        labels,
        chosen(true, labels, task),
    )


def _vectors(home: Path) -> dict[str, Vectors]:
    """{`X^0, titles, Module I`: vectors of the splits}, for each source and both networks."""
    params, device = load_params(home / "params.yaml"), devices.device()
    precomputed = Precomputed(home / "data/precomputed")
    store = DescriptorStore(precomputed.folder, params.encoder.modalities, device)
    splits = read_curated(home / "data/curated").splits
    out: dict[str, Vectors] = {}
    for network, folder in NETWORKS.items():
        members = load_members(home / folder, precomputed)
        networks = [member.network for member in members]
        for name in SPLITS:
            products = splits[name].product
            found = network_vectors(networks, store, products, device, devices.precision())
            for source, rows in found.items():
                out.setdefault(f"{source}, {network}", {})[name] = rows
    return out


def probed(sample: Sample, vectors: dict[str, Vectors]) -> tuple[Table, dict[str, Vectors]]:
    """The accuracy of each source's probes on test, and what they read there.

    Read: source -> attribute -> (n, values) probabilities. The first row has the share of the
    value that is the most frequent in train.
    """
    codes = sample.codes
    frequent = {a: np.bincount(codes["train"][a]).argmax() for a in VALUES}
    accuracies = {
        "most frequent value": {a: _percent(codes["test"][a] == frequent[a]) for a in VALUES}
    }
    read: dict[str, Vectors] = {}
    for source, rows in vectors.items():
        read[source] = {}
        for name, values in VALUES.items():
            known, asked = codes["train"][name], codes["valid"][name]
            found = probe(rows["train"], known, rows["valid"], asked, values)
            read[source][name] = found.probabilities(rows["test"])
        accuracies[source] = {
            a: _percent(read[source][a].argmax(1) == codes["test"][a]) for a in VALUES
        }
    return accuracies, read


def _percent(right: np.ndarray) -> float:
    return round(100 * float(right.mean()), 2) if len(right) else 0.0


def rescored(sample: Sample, read: dict[str, Vectors]) -> Table:
    """The ceiling with true attributes, then with those that probes read: all, or one of them."""
    truth = {
        name: np.eye(VALUES[name])[sample.codes["test"][name]] for name in ATTRIBUTES
    }  # (n, values)
    out = {"true": sample.figures(sample.ceiling.scores(sample.true["test"]))}
    for source, found in read.items():
        for names in (ATTRIBUTES, *((name,) for name in ATTRIBUTES)):
            mixed = {a: found[a] if a in names else truth[a] for a in ATTRIBUTES}
            row = f"{source}: {'all' if len(names) > 1 else names[0]}"
            out[row] = sample.figures(sample.ceiling.scores(weighted(mixed)))
    return out


def weighted(probabilities: Vectors) -> np.ndarray:
    """The columns of `one_hot` by (n, values) probabilities of each attribute; none is unknown."""
    blocks = []
    for name in ATTRIBUTES:
        known = probabilities[name]
        blocks += [known, np.zeros((len(known), 1))]
    return np.concatenate(blocks, 1).astype(np.float32)


def _label_vectors(home: Path, sample: Sample) -> Vectors:
    """{name: (L, width)}: what the ceiling learnt of the labels, and the fine-tuned network's."""
    index = load_index(home / "models/index", devices.device())
    return {
        "ceiling's": sample.ceiling.columns.T,
        "z^1": np.concatenate([e.vectors for e in index.labels], 1),
        "w": np.concatenate(index.classifiers, 1),
    }


def _label_codes(home: Path, sample: Sample) -> dict[str, tuple[np.ndarray, int]]:
    """{attribute: (codes (L,), number of values)} of the labels, own and wanted."""
    facts = read_json(home / "data/raw/source.json")["sample"]
    world = invent_world(facts["products"], facts["seed"])
    uids = read_table(home / "data/curated/products.parquet", "products", ["uid"])["uid"]
    products = read_curated(home / "data/curated").labels
    number = np.array([int(uid[1:]) for uid in uids.take(products).to_pylist()])
    codes = {name: (getattr(world, name)[number], VALUES[name]) for name in ATTRIBUTES}
    wanted = {f"wanted {n}": (getattr(world, f"wanted_{n}")[number], VALUES[n]) for n in WANTED}
    return codes | wanted


def probed_labels(labels: Vectors, codes: dict[str, tuple[np.ndarray, int]]) -> Table:
    """The accuracy of probes on a random third of the labels; most of the others train them."""
    some = next(iter(labels.values()))
    order = np.random.default_rng(0).permutation(len(some))
    train, valid, test = np.split(order, [len(order) * 3 // 5, len(order) * 2 // 3])
    out: Table = {"most frequent value": {}} | {source: {} for source in labels}
    for name, (code, values) in codes.items():
        frequent = np.bincount(code[train]).argmax()
        out["most frequent value"][name] = _percent(code[test] == frequent)
        for source, rows in labels.items():
            found = probe(rows[train], code[train], rows[valid], code[valid], values)
            read = found.probabilities(rows[test]).argmax(1)
            out[source][name] = _percent(read == code[test])
    return out


def _sides(sample: Sample, vectors: dict[str, Vectors], labels: Vectors) -> Table:
    """Datapoint side and label side of a bilinear score, each true or from the network."""
    asked = {"true": sample.true} | {f"{v}, {n}": vectors[f"{v}, {n}"] for v, n in SOURCES}
    pairs = [("true", "z^1"), ("true", "w")]
    pairs += [(source, "ceiling's") for source in asked if source != "true"]
    pairs += [("x^1, fine-tuned", "z^1"), ("x^1, fine-tuned", "w")]
    both = sample.figures(sample.ceiling.scores(sample.true["test"]))
    out = {"datapoint true, label ceiling's": both}
    for source, side in pairs:
        out[f"datapoint {source}, label {side}"] = mapped(sample, asked[source], labels[side])
    return out


def mapped(sample: Sample, asked: Vectors, labels: np.ndarray) -> dict[str, float]:
    """Figures on test of the score a_p . W b_l + c_l, W and c trained on train.

    `asked`: a of the datapoints of each split; `labels` (L, B): b. Both are standardised. The
    penalty of W is the best on valid.
    """
    scale, of_labels = Scale.of(asked["train"]), Scale.of(labels)(labels)
    none = np.zeros(asked["train"].shape[1], bool)
    truth = sample.task.truth["train"]
    models = [
        fitted(scale(asked["train"]), of_labels, truth, none, Penalties(shared=penalty))
        for penalty in (PENALTIES if len(asked["valid"]) else PENALTIES[1:2])
    ]
    best = best_model(models, scale(asked["valid"]), sample.task)
    return sample.figures(best.scores(scale(asked["test"])))


def _steps(sample: Sample, scores: Table, sides: Table, predicted: Table) -> Table:
    """From the ceiling to the predictions, each line with one part more of the network."""
    shown = ceiling.baseline(sample.task, 0)("test")[0]
    return {
        "true attributes": scores["true"],
        "what title and pictures show of them": merit(
            shown, sample.test.labels, sample.test.excluded
        ),
        "read from the descriptors (X^0)": scores["X^0, all, fine-tuned: all"],
        "read from x^1": scores["x^1, fine-tuned: all"],
        "x^1 by a linear map": sides["datapoint x^1, fine-tuned, label ceiling's"],
        "and labels by a linear map of w": sides["datapoint x^1, fine-tuned, label w"],
    } | predicted


def _predicted(home: Path, sample: Sample) -> Table:
    """What the run predicts, and its other methods."""
    folder = home / "data/predictions"
    files = {"data/predictions/test.parquet": folder / "test.parquet"} | {
        path.stem: path for path in sorted((folder / "methods").glob("mufin*.parquet"))
    }
    return {
        name: merit(read_ranking(path), sample.test.labels, sample.test.excluded)
        for name, path in files.items()
    }


def lines(table: Table) -> list[str]:
    """The table as aligned lines of text."""
    columns = list(next(iter(table.values())))
    width = max(map(len, table))
    head = " " * (width + 2) + "".join(
        f"{column:>{max(len(column) + 2, 8)}s}" for column in columns
    )
    return [
        head,
        *(
            f"  {row:{width}s}" + "".join(f"{figures[c]:{max(len(c) + 2, 8)}.2f}" for c in columns)
            for row, figures in table.items()
        ),
    ]


if __name__ == "__main__":
    runtime.run(main)
