"""Ranks a given list of products, also those that were never labels (MUFIN Sec. 4, Table 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mufin.ranking.own_vectors import own_vector_parts
from mufin.serving.answers import Answer
from mufin.serving.catalog import Catalog
from mufin.serving.query import QueryError
from mufin.serving.questions import Question


def ranked(catalog: Catalog, question: Question, candidates: Sequence[str]) -> list[Answer]:
    """All `candidates` (uids), best first, each by its own vector alone (alpha = 1).

    So a label and a product that is none are treated alike, and no other term of the mix counts.
    The score is beta c + (1 - beta) a; of several products asked about the mean. Equal scores stay
    in the order of the candidates. Raises QueryError for a candidate that is not in the catalog,
    and if no product asked about has a descriptor that the model uses.
    """
    uids = list(dict.fromkeys(candidates))
    if not uids:
        raise QueryError("candidates", "candidates is empty; give the products to rank")
    answers = [catalog.asked(uid, "candidates") for uid in uids]
    x = catalog.datapoints.embedded([(member, question.modalities) for member in question.members])
    there = np.flatnonzero(x[0].sizes > 0)
    if not len(there):
        raise QueryError("uids", "no product asked about has a title or picture that can be used")
    z = catalog.datapoints.embedded([(answer, None) for answer in answers])
    ids = np.tile(np.arange(len(uids)), (len(there), 1))
    predictor, beta = catalog.model.predictor, question.mix.beta
    parts = own_vector_parts(
        predictor.networks, [e.take(there) for e in x], z, ids, predictor.device
    )
    classifier, similarity = (values.mean(0, dtype=np.float64) for values in parts)
    named = {"classifier": beta * classifier, "similarity": (1 - beta) * similarity}
    total = named["classifier"] + named["similarity"]
    return [
        Answer(
            uids[i],
            answers[i].title,
            float(total[i]),
            {name: float(values[i]) for name, values in named.items()},
        )
        for i in np.argsort(-total, kind="stable")
    ]
