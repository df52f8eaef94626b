"""Why an answer was given: the descriptors of both products that go together (MUFIN Fig. 5a)."""

from __future__ import annotations

from textwrap import shorten
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mufin.corpus.modality import IMAGE, LEXICAL
from mufin.nn.bags import Bag
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.embedding import Embedded
from mufin.nn.mufin import Mufin
from mufin.serving.answers import Descriptor, Reason
from mufin.serving.labels import Labels

SHOWN = 3  # pairs per answer, the strongest
WORDS = 60  # characters of a text that its descriptor names
ATTENTION, COSINE = "attention", "cosine"


class Named(NamedTuple):
    """A product whose descriptors are named in reasons."""

    uid: str | None  # None for one that is not in the catalog
    titled: bool  # whether its first text is its title
    texts: tuple[str, ...] = ()  # the others, as the networks read them


def has_attention(networks: list[Mufin]) -> bool:
    """Whether reasons are weights of A_C; otherwise they are cosines."""
    return all(isinstance(network.cross_attention, CrossAttention) for network in networks)


@torch.inference_mode()
def reasons(
    labels: Labels,
    datapoints: list[Embedded],
    asked: list[Named],
    ids: np.ndarray,
    answers: list[Named],
) -> list[tuple[Reason, ...]]:
    """For each of the labels `ids` (k,), which are the products `answers`, its strongest pairs.

    `datapoints`: the n products `asked` about, as each member embeds them. A weight is the mean
    over members and heads.
    """
    networks = labels.predictor.networks
    by = ATTENTION if has_attention(networks) else COSINE
    n, k = len(asked), len(ids)
    rows, columns = np.repeat(np.arange(n), k), np.tile(np.arange(k), n)
    total: Tensor | None = None
    for member, network in enumerate(networks):
        x = datapoints[member].bags(rows, labels.predictor.device)
        z = labels.bags(member, ids)[torch.from_numpy(columns).to(labels.predictor.device)]
        weights = _attention(network, x, z) if by == ATTENTION else _cosines(x, z)
        total = weights if total is None else total + weights
    assert total is not None
    weight = (total / len(networks)).cpu().numpy().reshape(n, k, *total.shape[1:])
    ours, theirs = datapoints[0].bags(np.arange(n), torch.device("cpu")), labels.bags(0, ids)
    of_query = [_descriptors(of, kinds) for of, kinds in zip(asked, ours.modality.numpy())]
    of_answer = [
        _descriptors(of, kinds) for of, kinds in zip(answers, theirs.modality.cpu().numpy())
    ]
    return [
        _strongest([(q, of_answer[j], weight[i, j]) for i, q in enumerate(of_query)], by)
        for j in range(k)
    ]


def _attention(network: Mufin, x: Bag, z: Bag) -> Tensor:
    """(n, m_x, m_z): how much each descriptor of the datapoint takes from each of the label's."""
    block = network.cross_attention
    assert isinstance(block, CrossAttention)
    return block.pair_weights(x, z).mean(1)


def _cosines(x: Bag, z: Bag) -> Tensor:
    """(n, m_x, m_z): the cosines of all rows."""
    unit = [torch.nn.functional.normalize(bag.rows, dim=-1) for bag in (x, z)]
    return unit[0] @ unit[1].mT


def _descriptors(product: Named, kinds: np.ndarray) -> list[Descriptor | None]:
    """What is at each place of a bag; None for padding."""
    uid = product.uid
    out: list[Descriptor | None] = []
    texts = pictures = 0
    for kind in kinds:
        if kind < 0:
            out.append(None)
        elif kind == IMAGE:
            out.append(Descriptor(uid, "picture", pictures))
            pictures += 1
        elif kind == LEXICAL:
            out.append(Descriptor(uid, "words", 0))
        elif product.titled and not texts:
            out.append(Descriptor(uid, "title", 0))
            texts += 1
        else:
            number = texts - product.titled
            # Early fusion reads pictures as the first text of a product that has none
            said = product.texts[number] if number < len(product.texts) else ""
            out.append(Descriptor(uid, "text", number, shorten(said, WORDS, placeholder=" ...")))
            texts += 1
    return out


def _strongest(
    pairs: list[tuple[list[Descriptor | None], list[Descriptor | None], np.ndarray]], by: str
) -> tuple[Reason, ...]:
    found = [
        Reason(query, answer, round(float(weight[i, j]), 4), by)
        for of_query, of_answer, weight in pairs
        for i, query in enumerate(of_query)
        for j, answer in enumerate(of_answer)
        if query is not None and answer is not None
    ]
    return tuple(sorted(found, key=lambda reason: -reason.weight)[:SHOWN])
