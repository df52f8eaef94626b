"""Exact retrieval of Module II, and prediction, at the sizes of MM-AmazonTitles-300K."""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.on_gpu import catalog
from benchmarks.on_gpu.catalog import Sizes
from benchmarks.on_gpu.running import Row
from benchmarks.on_gpu.training import Place, Tell, peak_memory
from benchmarks.timing import interleaved
from mufin import devices
from mufin.corpus.modality import IMAGE, TEXT
from mufin.nn.embedding import Embedded, joint_rows
from mufin.nn.frozen import frozen_inputs
from mufin.nn.mufin import Mufin
from mufin.ragged import Lists, offsets_of
from mufin.ranking.label_index import LabelIndex
from mufin.ranking.mix import Mix, rank
from mufin.ranking.order import Ranking
from mufin.ranking.predictor import Predictor
from mufin.retrieval.augmented import augmented_rows
from mufin.retrieval.exact import ExactNeighbours, LabelRows, _full_float32, _layers, _top
from mufin.retrieval.neighbours import build_neighbours
from pipeline.precompute import BATCH

SHORTLIST, MIX = 100, Mix(0.7)
CHECKED = 200  # queries of the brute-force check


def retrieval(at: Place, tell: Tell) -> None:
    """The 100 nearest labels of each query among all bag rows and centroids, exactly."""
    device, sizes = devices.device(), at.sizes
    rows = _label_rows(sizes, device)
    queries = _unit(sizes.queries, sizes.dim, 1, device).cpu().numpy()
    exact = ExactNeighbours(rows, device)
    k = min(SHORTLIST, sizes.labels)
    exact.search(queries[:CHECKED], k)  # warms up
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    labels, similarity = exact.search(queries, k)
    seconds = time.perf_counter() - start
    peak = peak_memory("exact retrieval")
    every = sizes.products  # a shortlist for each
    floor = None
    if at.ceilings:
        # every product in full float32; the scores are written once and read once
        count = len(rows.label) * len(queries)
        floor = 2 * count * sizes.dim / at.ceilings.fp32 + 8 * count / at.ceilings.copy
    scale = every / len(queries)
    size = f"{len(queries)} queries, {len(rows.label)} rows of {sizes.labels} labels"
    tell(
        Row(
            figure="exact retrieval, top 100 labels",
            value=seconds,
            unit="s",
            floor=floor,
            note=size,
        )
    )
    tell(
        Row(
            figure=f"exact retrieval, scaled to {every} queries",
            value=seconds * scale,
            unit="s",
            floor=floor and floor * scale,
            aim=30.0,
            note="computed",
        )
    )
    tell(peak)
    _tell_check(rows, queries[:CHECKED], labels, similarity, tell)
    _tell_steps(exact, rows, queries, k, tell)


def _tell_steps(
    exact: ExactNeighbours, rows: LabelRows, queries: np.ndarray, k: int, tell: Tell
) -> None:
    """The time of each step of one chunk of queries, and that of label maxima by scattering."""
    step = exact.at_once(k)
    some = torch.from_numpy(queries[:step]).to(exact.device)
    label = torch.from_numpy(rows.label[_layers(rows)[0]]).to(exact.device)

    def scattered() -> torch.Tensor:
        empty = torch.full((rows.num_labels, len(some)), -torch.inf, device=exact.device)
        index = label[:, None].expand(-1, len(some))
        return empty.scatter_reduce_(0, index, exact.arranged().rows @ some.T, "amax").T

    with _full_float32():
        best = exact._best(some)
        ways = {
            "products": lambda: exact.arranged().rows @ some.T,
            "products and label maxima, in layers": lambda: exact._best(some),
            "products and label maxima, by scatter_reduce": scattered,
            f"top {k}": lambda: _top(best, k),
        }
        times = interleaved(ways, 3)
    for name, seconds in times.items():
        tell(
            Row(
                figure=f"exact retrieval, {len(some)} queries: {name}",
                unit="ms",
                value=1000 * float(np.median(seconds)),
            )
        )


def _label_rows(sizes: Sizes, device: torch.device) -> LabelRows:
    """Bag rows (a title, the images) and a centroid per label, of unit norm, made on `device`."""
    bag = 1 + catalog.image_counts(sizes.labels, np.random.default_rng(0))
    label = np.concatenate([np.repeat(np.arange(sizes.labels), bag), np.arange(sizes.labels)])
    rows = _unit(len(label), sizes.dim, 0, device).cpu().numpy()
    return LabelRows(rows, label, sizes.labels)


def _unit(count: int, dim: int, seed: int, device: torch.device) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(count, dim, generator=generator, device=device)
    return torch.nn.functional.normalize(x, dim=-1)


def _tell_check(
    rows: LabelRows, queries: np.ndarray, labels: np.ndarray, similarity: np.ndarray, tell: Tell
) -> None:
    """Compares some queries with numpy on the CPU: all inner products, their maximum per label."""
    order = np.argsort(rows.label, kind="stable")
    starts = np.searchsorted(rows.label[order], np.arange(rows.num_labels))
    best = np.maximum.reduceat((rows.rows @ queries.T)[order], starts, axis=0).T  # (q, L)
    k = labels.shape[1]
    wanted = np.argpartition(-best, k - 1, axis=1)[:, :k]
    values = -np.sort(-np.take_along_axis(best, wanted, 1), axis=1)
    same = np.mean([len(set(a) & set(b)) / k for a, b in zip(wanted, labels)])
    tell(
        Row(
            figure="exact retrieval: labels that brute force finds too",
            value=100 * float(same),
            unit="%",
            aim=100,
            note=f"{len(queries)} queries; equals to rounding may differ",
        )
    )
    tell(
        Row(
            figure="exact retrieval: largest difference of a similarity",
            unit="",
            value=float(np.abs(values - similarity[: len(queries)]).max()),
        )
    )


def prediction(at: Place, tell: Tell) -> None:
    """Milliseconds per datapoint: descriptors known; encoded from what is stored; from pixels."""
    device, sizes = devices.device(), at.sizes
    model = catalog.with_classifiers(catalog.network(sizes), sizes).eval()
    predictor = _predictor(at, model)
    some = np.random.default_rng(0).permutation(sizes.products)[: sizes.predicted]
    pairs = catalog.no_pairs(len(some))
    embedded = predictor.embed(some)  # these two warm up, and make the label side of the scores
    _ranked(predictor, embedded, pairs)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    _ranked(predictor, embedded, pairs)
    known = (time.perf_counter() - start) / len(some)
    start = time.perf_counter()
    predictor.embed(some)
    stored = (time.perf_counter() - start) / len(some)
    peak = peak_memory("prediction")
    pixels = _trunk_seconds(sizes, model)
    note = f"{len(some)} datapoints, {sizes.labels} labels, top {min(SHORTLIST, sizes.labels)}"
    for figure, seconds, why in (
        ("descriptors known", known, note),
        ("with encoding, from stored activations and tokens", known + stored, ""),
        (
            "with encoding, from pixels and tokens",
            known + stored + catalog.MEAN_IMAGES * pixels,
            f"computed: {catalog.MEAN_IMAGES} images through the frozen trunk; decoding aside",
        ),
    ):
        aim = None if "pixels" in figure else 0.3
        tell(
            Row(
                figure=f"prediction, {figure}",
                value=1000 * seconds,
                unit="ms per datapoint",
                aim=aim,
                note=why,
            )
        )
    tell(Row(figure="frozen trunk of E_V, from pixels", value=1 / pixels, unit="images/s"))
    tell(peak)


def _predictor(at: Place, model: Mufin) -> Predictor:
    """A predictor whose labels have random embeddings."""
    device, sizes = devices.device(), at.sizes
    bag = 1 + catalog.image_counts(sizes.labels, np.random.default_rng(0))
    offsets = offsets_of(bag)
    rows = _unit(int(offsets[-1]), sizes.dim, 0, device).cpu().numpy() * sizes.dim**0.5
    kinds = np.full(len(rows), IMAGE, np.int8)
    kinds[offsets[:-1]] = TEXT
    vectors, centroids = (
        _unit(sizes.labels, sizes.dim, seed, device).cpu().numpy() for seed in (1, 2)
    )
    labels = [Embedded(rows, kinds, offsets, vectors)]
    source = augmented_rows(joint_rows(labels), offsets, centroids)
    neighbours = build_neighbours(source, "exact", device=device)
    index = LabelIndex(
        labels,
        [],
        centroids,
        catalog.label_products(sizes),
        np.ones(sizes.labels, np.int64),
        neighbours,
        None,
    )
    store = at.store(model, sizes.held_images)
    return Predictor([model], store, index, device, devices.precision())


def _ranked(predictor: Predictor, datapoints: list[Embedded], pairs: Lists) -> Ranking:
    """All that evaluate does of embedded datapoints: candidates, scores, the order."""
    return rank(predictor.candidates(datapoints, SHORTLIST, pairs), MIX, pairs)


def _trunk_seconds(sizes: Sizes, model: Mufin) -> float:
    """Seconds per image of E_V's frozen part."""
    encoder, side, batch = model.encoders["image"], sizes.image["size"], BATCH["cuda"]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        256, (min(batch, sizes.pictures), side, side, 3), dtype=torch.uint8, generator=generator
    )
    device, precision = devices.device(), devices.precision()
    frozen_inputs(encoder, (pixels,), device, precision)  # warms up
    repeats = max(sizes.pictures // len(pixels), 1)
    start = time.perf_counter()
    for _ in range(repeats):
        frozen_inputs(encoder, (pixels,), device, precision)
    return (time.perf_counter() - start) / (repeats * len(pixels))
