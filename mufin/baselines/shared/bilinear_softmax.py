"""A softmax over all labels whose scores are bilinear in attributes of datapoint and label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize

from mufin.ragged import Lists

BUDGET = 2**23  # scores (float32) held at once: 32 MB
STEPS = 200  # of L-BFGS, at most; on the sample the metrics do not change after some 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalties:
    """Half of each times the squared length of its part is added to the loss."""

    shared: float = 1.0  # W
    free: float = 1.0  # e, all rows
    bias: float = 0.1  # c


@dataclass(frozen=True, slots=True)
class BilinearSoftmax:
    """s(p, l) = a_p . m_l + c_l for a datapoint with the attributes a_p."""

    columns: np.ndarray  # (A, L) float32: m_l = W b_l + e_l
    bias: np.ndarray  # (L,) float32: c_l

    def scores(self, asked: np.ndarray) -> np.ndarray:
        """(n, L) float32 of the datapoints with attributes `asked` (n, A)."""
        return asked.astype(np.float32) @ self.columns + self.bias


def fitted(
    asked: np.ndarray,
    labels: np.ndarray,
    truth: Lists,
    free: np.ndarray,
    penalties: Penalties,
) -> BilinearSoftmax:
    """The W, e and c with the smallest sum over pairs (p, l) of `truth` of -log softmax_l(s(p, .)).

    `asked` (n, A): attributes a_p. `labels` (L, B): attributes b_l. `truth`: n rows of label ids.
    W (A, B) is shared by all labels; each label has a free row e_l (A,) that is 0 but for the
    attributes `free` (A,) bool. With B = 0 and all attributes free it is multinomial logistic
    regression. It starts from 0 and draws nothing. L-BFGS, float32 scores.
    """
    problem = _Problem(
        asked.astype(np.float32), labels.astype(np.float32), truth, np.flatnonzero(free), penalties
    )
    found = minimize(
        problem.loss_and_slope,
        np.zeros(problem.size),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": STEPS, "ftol": 1e-7, "gtol": 1e-6},
    )
    return problem.model(found.x)


class _Problem:
    """The loss per pair of truth and its gradient, for an optimiser of one flat vector."""

    def __init__(
        self,
        asked: np.ndarray,
        labels: np.ndarray,
        truth: Lists,
        free: np.ndarray,
        penalties: Penalties,
    ):
        self.asked, self.labels, self.free, self.penalties = asked, labels, free, penalties
        self.sizes = truth.lengths().astype(np.float32)  # |S_p|
        self.pairs = max(len(truth.values), 1)
        shape = (len(truth), len(labels))
        ones = np.ones(len(truth.values), np.float32)
        relevance = sp.csr_matrix((ones, truth.values, truth.offsets), shape)
        self.wanted = np.ascontiguousarray((relevance.T @ asked).T)  # (A, L), sum of a_p
        self.counts = np.asarray(relevance.sum(0), np.float32).ravel()  # (L,)
        self.ends = np.cumsum([asked.shape[1] * labels.shape[1], len(free) * len(labels)])
        self.size = int(self.ends[-1]) + len(labels)

    def parts(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """W (A, B), the free attributes of e (F, L) and c (L,)."""
        shared, free, bias = np.split(flat.astype(np.float32), self.ends)
        return (
            shared.reshape(self.asked.shape[1], self.labels.shape[1]),
            free.reshape(len(self.free), len(self.labels)),
            bias,
        )

    def model(self, flat: np.ndarray) -> BilinearSoftmax:
        shared, free, bias = self.parts(flat)
        columns = shared @ self.labels.T
        columns[self.free] += free
        return BilinearSoftmax(columns, bias)

    def loss_and_slope(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss, and its gradient (size,) float64."""
        model, (shared, free, bias) = self.model(flat), self.parts(flat)
        loss = -float((self.wanted * model.columns).sum()) - float(self.counts @ bias)
        slope, of_bias = -self.wanted, -self.counts  # of the columns and of c
        step = max(1, BUDGET // len(self.labels))
        for start in range(0, len(self.asked), step):
            asked, sizes = self.asked[start : start + step], self.sizes[start : start + step]
            scores = model.scores(asked)
            highest = scores.max(1)
            odds = np.exp(scores - highest[:, None])
            total = odds.sum(1)
            loss += float(sizes @ (np.log(total) + highest))
            odds *= (sizes / total)[:, None]  # |S_p| softmax(s_p)
            slope += asked.T @ odds
            of_bias += odds.sum(0)
        slopes = [slope @ self.labels, slope[self.free], of_bias]
        weights = (self.penalties.shared, self.penalties.free, self.penalties.bias)
        for part, weight, own in zip((shared, free, bias), weights, slopes):
            loss += 0.5 * weight * float((part * part).sum())
            own += weight * part
        # per pair, so that the optimiser's tolerances do not depend on the number of datapoints
        return loss / self.pairs, np.concatenate([s.ravel() for s in slopes]).astype(
            np.float64
        ) / self.pairs
