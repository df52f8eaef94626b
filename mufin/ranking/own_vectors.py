"""Scores of given answers by their own vectors alone (alpha = 1; MUFIN Sec. 4, Table 3).

The answers may be any products: what training learnt of single labels is not used.
"""

from __future__ import annotations

import numpy as np
import torch

from mufin.nn.embedding import Embedded
from mufin.nn.mufin import Mufin
from mufin.ranking.scoring import classifier_scores, label_sides


def own_vector_parts(
    networks: list[Mufin],
    x: list[Embedded],
    answers: list[Embedded],
    ids: np.ndarray,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray]:
    """(n, K) float32 classifier scores c with w = z^1, and cosines a of x^1 and z^1.

    Of n datapoints `x` and the answers `ids` (n, K), numbers of `answers`, -1 for none; where there
    is none the scores are arbitrary. Both are means over the members.
    """
    sides = label_sides(networks, answers, device, alpha_one=True)
    classifier = classifier_scores(sides, x, ids, device)
    cosines = np.zeros(ids.shape, np.float32)
    for of_x, of_answers in zip(x, answers):
        z = of_answers.vectors[np.maximum(ids, 0)]  # (n, K, D)
        cosines += np.einsum("nd,nkd->nk", of_x.vectors, z) / len(answers)
    return classifier, cosines
