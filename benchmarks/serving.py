"""What one server needs: seconds to load, memory, milliseconds per question, beside plain searches.

python -m benchmarks.serving --labels 300000 --folder DIR --out benchmarks/results/serving.json

The model in DIR is made if it is not there: `benchmarks.serving_model`. To build its graph takes
an hour on two busy cores. A plain search gets the same rows and the vector of the same question,
and returns the nearest rows; it needs neither label sides nor scores, and cannot encode. What the
server adds is the time of a request that its device thread does not work: parsing, queue, HTTP.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from benchmarks.serving_model import OTHERS, build
from benchmarks.timing import interleaved, machine, spread
from mufin import runtime

K = 10
SHORTLIST = 100  # rows that a plain search returns, as many as labels are scored
SIDE = 500  # pixels per side of a picture
PICTURES = 5  # of a new product
WARM = 20  # questions that do not count
PARTS = ("recommender", "server", "flat", "hnswlib", "encoders")  # each in a process of its own


def main(
    folder: Path,
    labels: int = 300_000,
    rows: int = 6,
    questions: int = 1000,
    cold: int = 60,
    part: Annotated[str, typer.Option(help="one of the parts alone, as JSON")] = "",
    note: str = "",
    out: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """`questions` known products one by one, then `cold` new ones; `rows` descriptors per label."""
    if part:
        print(json.dumps(_part(part, folder, questions, cold)))
        return
    build(folder, labels, rows, runtime.workers())
    found: dict[str, dict] = {}
    for name in PARTS:
        command = [sys.executable, "-m", "benchmarks.serving", str(folder), "--part", name]
        command += ["--questions", str(questions), "--cold", str(cold)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        found |= json.loads(done.stdout.splitlines()[-1])
    question = f"{labels} labels of {rows} descriptors, ViT-B/32 and DistilBERT, k {K}"
    for name, figures in found.items():
        print(f"{name:46s}" + "  ".join(f"{key} {value:.4g}" for key, value in figures.items()))
    if out:
        said = {"question": question, "machine": machine(), "note": note, "rows": found}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(said, indent=2) + "\n")


def _part(name: str, folder: Path, questions: int, cold: int) -> dict[str, dict]:
    if name == "recommender":
        return dict(_recommender(folder, questions, cold))
    if name == "server":
        return _server(folder, questions)
    if name == "encoders":
        return _encoders(folder, cold)
    return dict(_plain(name, folder, questions))


def _recommender(folder: Path, questions: int, cold: int) -> Iterator[tuple[str, dict]]:
    peak = PeakMemory()
    start = time.perf_counter()
    from mufin.serving.recommender import Recommender

    imported = time.perf_counter() - start
    recommender = Recommender.load(folder, fast=True)
    loaded = time.perf_counter() - start
    yield "load", {"seconds": loaded, "of which imports": imported} | peak.figures("after")
    model = recommender.model
    count, rng = len(model.predictor.index), np.random.default_rng(0)
    known = [model.uids[row] for row in rng.permutation(count)]
    ask: Callable = recommender.recommend
    _warm(lambda n: ask(known[-n], k=K))
    yield "known product, a label", _times(lambda n: ask(known[n], k=K), questions)
    others = [model.uids[count + n] for n in range(OTHERS)]
    yield "known product, no label", _times(lambda n: ask(others[n], k=K), min(OTHERS, questions))
    yield "batches of 32 known products", _batches(recommender, known[questions:], questions)
    yield "memory, known products", peak.figures("now")
    start = time.perf_counter()
    ask(title="a mug", images=[_picture(-1)], k=K)
    yield "first new product", {"seconds": time.perf_counter() - start}
    titles = [
        f"Ceramic mug of {n} ml with a handle and a lid, dishwasher safe" for n in range(cold)
    ]
    yield "new product, a title", _times(lambda n: ask(title=titles[n], k=K), cold)
    pictures = [[_picture(PICTURES * n + i) for i in range(PICTURES)] for n in range(cold)]
    new = _times(lambda n: ask(title=titles[-n - 1] + ".", images=pictures[n], k=K), cold)
    yield f"new product, a title and {PICTURES} pictures", new
    yield "memory, all", peak.figures("now")


def _server(folder: Path, questions: int) -> dict[str, dict]:
    """`mufin serve` in a process of its own, asked by one client over one connection."""
    import httpx

    from benchmarks.soak import running
    from mufin.artifacts.tables import read_table

    products = read_table(folder / "data/curated/products.parquet", "products", ["uid"])["uid"]
    known = np.random.default_rng(0).permutation(len(products) - OTHERS)[: questions + WARM]
    whole, added = [], []
    with tempfile.TemporaryDirectory() as scratch, running(folder, Path(scratch)) as (_, address):
        with httpx.Client(base_url=address, timeout=60) as http:
            worked = _worked(http.get("/metrics").text)
            for row in known:
                question = {"uids": [products[int(row)].as_py()], "k": K}
                start = time.perf_counter()
                http.post("/v1/recommend", json=question).raise_for_status()
                whole.append(time.perf_counter() - start)
                before, worked = worked, _worked(http.get("/metrics").text)
                added.append(whole[-1] - (worked - before))
    counted = {"questions": questions}
    return {
        "HTTP request, a known product": spread(whole[WARM:]) | counted,
        "of which the server adds": spread(added[WARM:]) | counted,
    }


def _worked(metrics: str) -> float:
    """Seconds that the device thread has worked on answers so far."""
    (line,) = [
        line
        for line in metrics.splitlines()
        if line.startswith('mufin_device_seconds_total{work="answers"}')
    ] or ["none 0"]
    return float(line.split()[-1])


def _plain(name: str, folder: Path, questions: int) -> Iterator[tuple[str, dict]]:
    """The nearest rows by FAISS (exact) or hnswlib alone, at the settings of the index."""
    import torch

    from mufin.ranking.label_index import load_index

    index = load_index(folder / "models/index", torch.device("cpu"))
    asked = index.labels[0].vectors[np.random.default_rng(0).permutation(len(index))[:questions]]
    search: Callable
    if name == "flat":
        import faiss

        faiss.omp_set_num_threads(runtime.workers())
        flat = faiss.IndexFlatIP(asked.shape[1])
        rows = index.neighbours.source.rows
        for start in range(0, len(rows), 100_000):
            flat.add(rows[start : start + 100_000])
        few = min(questions, 100)
        search = flat.search
        yield (
            "FAISS IndexFlatIP, nearest rows",
            _times(lambda n: search(asked[n : n + 1], SHORTLIST), few),
        )
        return
    graph = index.neighbours.graph
    for width, ef in ((SHORTLIST, SHORTLIST), (7 * SHORTLIST, index.neighbours.ef)):
        graph.set_ef(ef)
        nearest = partial(graph.knn_query, k=width)
        figures = _times(lambda n: nearest(asked[n : n + 1]), questions)  # noqa: B023
        yield f"hnswlib, {width} nearest rows, ef {ef}", figures


def _encoders(folder: Path, repeats: int) -> dict[str, dict]:
    """Both encoders in torch, with float32 and bfloat16, and in ONNX Runtime, in turns."""
    import torch

    from mufin.artifacts.precomputed import Precomputed
    from mufin.nn.vision_language import load_encoder
    from mufin.params import load_params
    from mufin.serving.new_products import NewProducts

    torch.set_num_threads(runtime.workers())
    precomputed, cpu = Precomputed(folder / "data/precomputed"), torch.device("cpu")
    settings = load_params(folder / "params.yaml").encoder
    onnx, side = NewProducts(precomputed, settings, cpu, torch.float32), settings.image.size
    tokens = settings.text.max_tokens
    inputs: dict[str, tuple[torch.Tensor, ...]] = {
        "image": (torch.randint(0, 256, (PICTURES, side, side, 3), dtype=torch.uint8),),
        "text": (torch.randint(5, 1000, (1, tokens), dtype=torch.int32), torch.tensor([tokens])),
    }
    ways: dict[str, Callable[[], object]] = {}
    for name, what in (("image", f"{PICTURES} pictures"), ("text", f"a title of {tokens} tokens")):
        encoder, given = load_encoder(precomputed.stored_encoder(name)), inputs[name]
        for kind in (torch.float32, torch.bfloat16):
            ways[f"{what}, torch {kind}"] = partial(_of_torch, encoder, given, kind)
        ways[f"{what}, ONNX Runtime"] = partial(getattr(onnx, name).frozen, *given)
    return {name: spread(seconds) for name, seconds in interleaved(ways, repeats).items()}


def _of_torch(encoder, inputs: tuple, kind) -> None:  # noqa: ANN001
    import torch

    with torch.inference_mode(), torch.autocast("cpu", kind, kind != torch.float32):
        encoder.frozen(*inputs)


def _warm(ask: Callable[[int], object]) -> None:
    for n in range(1, WARM + 1):
        ask(n)


def _times(ask: Callable[[int], object], count: int) -> dict[str, float]:
    seconds = []
    for n in range(count):
        start = time.perf_counter()
        ask(n)
        seconds.append(time.perf_counter() - start)
    return spread(seconds) | {"questions": count}


def _batches(recommender, known: list[str], questions: int) -> dict[str, float]:  # noqa: ANN001
    from mufin.serving.query import Query

    batches = [
        [Query(uids=(uid,), k=K) for uid in known[start : start + 32]]
        for start in range(0, max(questions // 32, 1) * 32, 32)
    ]
    start = time.perf_counter()
    for batch in batches:
        recommender.recommend_batch(batch)
    seconds = time.perf_counter() - start
    return {"questions_per_second": sum(map(len, batches)) / seconds}


def _picture(seed: int) -> bytes:
    """A JPEG of soft shapes, as a photograph compresses: some 40 kB."""
    rng = np.random.default_rng(seed + 1)
    small = Image.fromarray(rng.integers(0, 256, (60, 60, 3), np.uint8))
    content = io.BytesIO()
    small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
    return content.getvalue()


class PeakMemory:
    """The memory of this process and its largest value: a thread looks every 20 ms.

    `own` is what nothing but this process can give back; of `mapped` files the kernel drops pages
    when it needs the memory. Both together are the resident memory.
    """

    def __init__(self) -> None:
        self.own = self.both = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    def figures(self, when: str) -> dict[str, float]:
        own, mapped = _memory()
        return {
            f"own_gb_{when}": own,
            f"mapped_gb_{when}": mapped,
            "own_gb_peak": self.own,
            "resident_gb_peak": self.both,
        }

    def _look(self) -> None:
        while True:
            own, mapped = _memory()
            self.own, self.both = max(self.own, own), max(self.both, own + mapped)
            time.sleep(0.02)


def _memory() -> tuple[float, float]:
    """GB of own memory and of mapped files, of this process and the decoders that it started."""
    import psutil

    process, own, mapped = psutil.Process(), 0, 0
    for one in (process, *process.children()):
        try:
            text = Path(f"/proc/{one.pid}/status").read_text()
        except OSError:  # it has ended
            continue
        said = dict(line.split(":", 1) for line in text.splitlines())
        own += int(said["RssAnon"].split()[0])
        mapped += int(said["RssFile"].split()[0]) + int(said["RssShmem"].split()[0])
    return own * 1024 / 1e9, mapped * 1024 / 1e9


if __name__ == "__main__":
    typer.run(main)
