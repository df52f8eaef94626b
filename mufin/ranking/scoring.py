"""Classifier scores c = <w_l, x^{2,l}> of candidate labels (MUFIN Sec. 3.1, Prediction)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from mufin import process_group
from mufin.nn.bags import Bag
from mufin.nn.embedding import Embedded
from mufin.nn.label_side import LabelSide
from mufin.nn.mufin import Mufin

HELD = 2**30  # bytes of label sides in memory at once
GPU_HELD = 2**32  # the same on a GPU


@dataclass(frozen=True, slots=True)
class LabelSides:
    """The networks of an ensemble, and what each needs of all labels to score them.

    `held` are the sides of all labels, each padded to the longest bag. With D = 192 and 16 rows a
    label takes 40 KB, so of 300,000 labels these would be 12 GB. It is None where they take more
    than `most` bytes: then `classifier_scores` computes the sides of a block of labels at a time.
    """

    networks: list[Mufin]
    labels: list[Embedded]
    alpha_one: bool
    held: list[LabelSide] | None
    most: int  # bytes of a block

    def side(
        self, member: int, ids: np.ndarray, device: torch.device, chunk: int = 8192
    ) -> LabelSide:
        """The side of labels `ids` (U,) by one member, computed `chunk` labels at a time.

        It is padded to the longest bag among them.
        """
        network, embedded = self.networks[member], self.labels[member]
        width, parts = max(int(embedded.sizes[ids].max(initial=0)), 1), []
        for start in range(0, max(len(ids), 1), chunk):
            some = ids[start : start + chunk]
            z = torch.from_numpy(embedded.vectors[some]).to(device)
            if self.alpha_one:
                w = network.unseen_classifier(z)
            else:
                w = network.classifier(torch.from_numpy(some).to(device), z)
            parts.append(network.label_side(embedded.bags(some, device, width), w))
        return _joined(parts)

    def blocks(self, member: int) -> list[np.ndarray]:
        """The ids of all labels in blocks, the side of each of which takes at most `most` bytes.

        Labels with bags of about the same size share a block, so there is hardly any padding.
        """
        sizes = np.maximum(self.labels[member].sizes, 1)
        order = np.argsort(sizes, kind="stable")
        at_width = np.zeros(int(sizes.max(initial=1)) + 1, np.int64)  # bytes per label
        for width in np.unique(sizes):
            at_width[width] = _bytes_per_label(
                self.networks[member], self.labels[member], int(width)
            )
        ascending, out, start = at_width[sizes[order]], [], 0
        while start < len(order):
            rest = ascending[start:]  # the last label of a block has the longest bag
            count = int((np.arange(1, len(rest) + 1) * rest <= self.most).sum())
            out.append(order[start : start + max(count, 1)])
            start += max(count, 1)
        return out


@torch.inference_mode()
def label_sides(
    networks: list[Mufin],
    labels: list[Embedded],
    device: torch.device,
    alpha_one: bool = False,
    chunk: int = 8192,
    most: int | None = None,
) -> LabelSides:
    """The label sides of all labels, or what computes them in blocks of `most` bytes.

    `most` is HELD, or GPU_HELD on a GPU. With `alpha_one` the classifier of a label is its
    embedding z^1 (of `directed` classifiers: what their matrix makes of it), which needs no
    training of the label.
    """
    if most is None:
        most = GPU_HELD if device.type == "cuda" else HELD
    size = 0
    for network, embedded in zip(networks, labels):
        longest = max(int(embedded.sizes.max(initial=0)), 1)
        size += len(embedded.vectors) * _bytes_per_label(network, embedded, longest)
        network.to(device)
    sides = LabelSides(networks, labels, alpha_one, None, most)
    if size > most:
        return sides
    every = np.arange(len(labels[0].vectors))
    held = [sides.side(member, every, device, chunk) for member in range(len(networks))]
    return LabelSides(networks, labels, alpha_one, held, most)


def _bytes_per_label(network: Mufin, embedded: Embedded, width: int) -> int:
    """Bytes that the side of a label takes whose bag is padded to `width` rows."""
    like, dim = next(network.parameters()), embedded.vectors.shape[1]
    rows, w = torch.zeros(1, width, dim).to(like), torch.zeros(1, dim).to(like)
    kinds = torch.full((1, width), -1, dtype=torch.int8, device=like.device)
    side = network.label_side(Bag(rows, kinds), w)
    return sum(t.numel() * t.element_size() for t in side.tensors())


def _joined(parts: list[LabelSide]) -> LabelSide:
    """Joins the sides of all chunks to one; empties `parts`.

    It joins field by field and frees each, so that only one field is in memory twice.
    """
    kind = type(parts[0])
    columns = [list(field) for field in zip(*(part.tensors() for part in parts))]
    parts.clear()
    return kind(*(torch.cat(columns.pop(0)) for _ in range(len(columns))))


@torch.inference_mode()
def classifier_scores(
    labels: LabelSides,
    datapoints: list[Embedded],
    candidates: np.ndarray,
    device: torch.device,
    budget: int = 2**25,
) -> np.ndarray:
    """(n, K) float32: the mean over members of <w_l, x^{2,l}>.

    `candidates` (n, K) are label ids, -1 = none; scores of missing candidates are arbitrary.
    Datapoints are processed in chunks that take about `budget` numbers of memory. The sums of a
    pair are the same with sides that are held and with blocks of labels, but the padding differs,
    so the last digits may. All processes of a stage must call it: each scores its share of the
    chunks, and all get all scores.
    """
    out, every = np.zeros(candidates.shape, np.float32), np.arange(len(candidates))
    for member, x in enumerate(datapoints):
        if labels.held is None:
            _add_in_blocks(out, labels, member, x, candidates, device, budget)
            continue
        ids, side = np.maximum(candidates, 0), labels.held[member]
        out += _scores(labels.networks[member], side, x, every, ids, device, budget)
    return process_group.total(out, device) / np.float32(len(datapoints))


def _add_in_blocks(
    out: np.ndarray,
    labels: LabelSides,
    member: int,
    x: Embedded,
    candidates: np.ndarray,
    device: torch.device,
    budget: int,
) -> None:
    """Adds the scores of `candidates` by one member to `out` (n, K), a block of labels at a time.

    In a block, datapoints that have equally many candidates there are scored together, so each
    score is computed once and the vectors of a datapoint once per block.
    """
    blocks, network = labels.blocks(member), labels.networks[member]
    block_of, place = _places(blocks, len(labels.labels[member].vectors))
    block_of = block_of[candidates]
    for number, block in enumerate(blocks):
        side = labels.side(member, block, device)
        for places in _by_count(block_of == number):
            rows, ids = places[:, 0] // candidates.shape[1], place[candidates.ravel()[places]]
            scores = _scores(network, side, x, rows, ids, device, budget)
            out.reshape(-1)[places] += scores
        del side  # before the next one is computed


def _places(blocks: list[np.ndarray], num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """(L + 1,) int32 the block of each label, and (L,) int64 its place in the block.

    The last block number, which label -1 gets, is no block's.
    """
    block_of, place = np.full(num_labels + 1, -1, np.int32), np.zeros(num_labels, np.int64)
    for number, ids in enumerate(blocks):
        block_of[ids], place[ids] = number, np.arange(len(ids))
    return block_of, place


def _by_count(there: np.ndarray) -> Iterator[np.ndarray]:
    """Flat places (B, c) where `there` (n, K) is true, of all rows with c of them, for each c."""
    counts = there.sum(1)
    places = np.flatnonzero(there)
    places = places[np.argsort(counts[places // there.shape[1]], kind="stable")]
    start = 0
    for count, rows in enumerate(np.bincount(counts)):
        if count and rows:
            yield places[start : start + rows * count].reshape(rows, count)
            start += rows * count


def _scores(
    network: Mufin,
    side: LabelSide,
    x: Embedded,
    rows: np.ndarray,
    ids: np.ndarray,
    device: torch.device,
    budget: int,
) -> np.ndarray:
    """(B, K) float32 scores of datapoints `rows` (B,) of `x` and labels `ids` (B, K) of `side`.

    Those of the chunks that other processes compute are 0.
    """
    num_labels, width = len(side.w), ids.shape[1]
    # With many candidates it is cheaper to score all labels than to copy a side per datapoint.
    every = width * 4 >= num_labels
    if device.type == "cuda" and not every:
        budget *= 16  # a dozen datapoints at a time would leave a GPU idle between launches
    per = (num_labels if every else width) * side.numbers(own=not every)
    chunk = int(max(1, budget // max(per, 1)))
    out, chunks = np.zeros(ids.shape, np.float32), range(0, len(rows), chunk)
    world = process_group.world()
    # In turns; calls with one chunk, of other widths, go to different processes
    for start in chunks[(process_group.rank() + width) % world :: world]:
        at = slice(start, start + chunk)
        own = torch.from_numpy(ids[at].astype(np.int64)).to(device)
        bags = x.bags(rows[at], device)
        if every:
            scores = network.scores(bags, side).gather(1, own)
        else:
            scores = network.scores(bags, side[own])
        out[at] = scores.float().cpu().numpy()
    return out
