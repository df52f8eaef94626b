"""Questions to answers: retrieve, score and rank, as the stage evaluate does (MUFIN Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mufin.corpus.image_store import key_of
from mufin.nn.embedding import Embedded, search_vectors
from mufin.ragged import Lists
from mufin.ranking.mix import Candidates, Mix
from mufin.ranking.order import top
from mufin.serving.answers import Answer
from mufin.serving.catalog import Catalog
from mufin.serving.datapoints import Asked
from mufin.serving.embedded import joined, one_of
from mufin.serving.kept_texts import kept_texts
from mufin.serving.popular import popular
from mufin.serving.query import NewProduct
from mufin.serving.questions import Question
from mufin.serving.reasons import Named, reasons

AVOID = 0.5  # weight of the score by the products to avoid, beside 1 for those asked about


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The best labels of one question, with their scores and the parts of these."""

    labels: np.ndarray  # (k,)
    scores: np.ndarray  # (k,) float32
    parts: dict[str, np.ndarray]  # (k,) each


class Ranker:
    """Answers questions about one catalog; as many as possible go through the networks at once."""

    def __init__(self, catalog: Catalog):
        self.catalog, self.labels = catalog, catalog.labels
        self.predictor = catalog.model.predictor

    def answers(self, questions: list[Question]) -> list[list[Answer]]:
        """The answers to each question, best first."""
        asked = [
            (product, question.modalities)
            for question in questions
            for product in (*question.members, *question.avoid)
        ]
        embedded = self.catalog.datapoints.embedded(asked)
        there, start = embedded[0].sizes > 0, 0
        ranked: dict[int, _Ranked] = {}
        rows_of: dict[int, tuple[list[int], list[int]]] = {}
        plain: dict[tuple, list[int]] = {}
        for i, question in enumerate(questions):
            middle = start + len(question.members)
            end = middle + len(question.avoid)
            members = [row for row in range(start, middle) if there[row]]
            avoid = [row for row in range(middle, end) if there[row]]
            rows_of[i], start = (members, avoid), end
            if not members:
                ranked[i] = self._popular(question)
            elif len(members) == 1 and not avoid and not question.query.fold:
                plain.setdefault(_alike(question, self._wide(question)), []).append(i)
            else:
                ranked[i] = self._compound(
                    question,
                    _take(embedded, [*members, *avoid]),
                    [asked[row][0] for row in (*members, *avoid)],
                    len(members),
                )
        for numbers in plain.values():
            rows = [rows_of[i][0][0] for i in numbers]
            found = self._plain(
                [questions[i] for i in numbers],
                _take(embedded, rows),
                [asked[row][0] for row in rows],
            )
            ranked |= zip(numbers, found)
        return [
            self._worded(questions[i], ranked[i], embedded, rows_of[i][0], asked)
            for i in range(len(questions))
        ]

    def _wide(self, question: Question) -> int:
        """How many labels are retrieved."""
        e = self.catalog.model.params.evaluate
        if e.candidates == "all":
            return self.labels.count
        return max(e.shortlist, question.query.k)

    def _plain(
        self, questions: list[Question], x: list[Embedded], asked: list[Asked]
    ) -> list[_Ranked]:
        """Questions about one product each that are alike in all but the product and k."""
        first = questions[0]
        excluded = Lists.of_rows([question.excluded for question in questions])
        ids, similarity = self.labels.search(
            search_vectors(x), self._wide(first), excluded, first.allowed
        )
        candidates = self._candidates(x, ids, similarity, asked, first)
        every = np.arange(len(questions))
        scores = candidates.scores(first.mix, self._frequency(first.mix), every)
        width = max(question.query.k for question in questions)
        labels, best = top(ids, scores, None, width)
        out = []
        for row, question in enumerate(questions):
            count = int((labels[row, : question.query.k] >= 0).sum())
            columns = _places(ids[row], labels[row, :count])
            parts = self._parts(candidates, first.mix, row)
            chosen = {name: values[columns] for name, values in parts.items()}
            out.append(_Ranked(labels[row, :count], best[row, :count], chosen))
        return out

    def _compound(
        self, question: Question, x: list[Embedded], asked: list[Asked], members: int
    ) -> _Ranked:
        """A basket, products to avoid, or variants folded: more labels until there are k."""
        wide, k = self._wide(question), question.query.k
        while True:
            ids, parts, full = self._of_basket(question, x, asked, members, wide)
            total = np.zeros(len(ids))
            for values in parts.values():
                total += values
            labels, best = (found[0] for found in top(ids[None], total[None], None, len(ids)))
            if question.query.fold:
                kept = self._folded(question, labels)
                labels, best = labels[kept], best[kept]
            if len(labels) >= k or full:
                break
            wide *= 2
        columns = _places(ids, labels[:k])
        chosen = {name: values[columns] for name, values in parts.items()}
        return _Ranked(labels[:k], best[:k], chosen)

    def _of_basket(
        self, question: Question, x: list[Embedded], asked: list[Asked], members: int, wide: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray], bool]:
        """The labels that any member finds, the parts of their scores, and whether these are all.

        A part is the mean over the members, less half the mean over the products to avoid.
        """
        vectors = search_vectors(x)
        excluded = Lists.of_rows([question.excluded] * members)
        found, _ = self.labels.search(vectors[:members], wide, excluded, question.allowed)
        full = wide >= self.labels.count or bool(((found >= 0).sum(1) < wide).all())
        ids = np.unique(found[found >= 0])
        similarity = self.labels.similarity(vectors, ids)
        tiled = np.tile(ids, (len(vectors), 1))
        candidates = self._candidates(x, tiled, similarity, asked, question)
        out: dict[str, np.ndarray] = {}
        for row in range(len(vectors)):
            share = 1 / members if row < members else -AVOID / (len(vectors) - members)
            for name, values in self._parts(candidates, question.mix, row).items():
                if row < members:
                    out[name] = out.get(name, 0) + share * values
                elif name != "frequency":  # popularity says nothing of what is to be avoided
                    out["avoid"] = out.get("avoid", 0) + share * values
        return ids, out, full

    def _candidates(
        self,
        x: list[Embedded],
        ids: np.ndarray,
        similarity: np.ndarray,
        asked: list[Asked],
        question: Question,
    ) -> Candidates:
        """The scores that the mix of the question needs, of n products and labels `ids` (n, K)."""
        mix, index, network = question.mix, self.labels.index, question.mix.network_weight
        trained = self.labels.trained(ids)
        classifier = np.zeros(ids.shape, np.float32)
        if network and mix.beta > 0:
            classifier = self.labels.classifier(x, ids)
        ridge, votes, pairs = None, None, None
        if mix.ridge_weight and index.ridge is not None:
            words = question.modalities is None or {"text", "lexical"} & set(question.modalities)
            scores = index.ridge.scores([product.title if words else "" for product in asked])
            taken = np.take_along_axis(scores, np.maximum(trained, 0), 1)
            ridge = np.where(trained >= 0, taken, 0)
        rows = np.array([product.row for product in asked], np.int64)
        if mix.vote_weight and index.votes is not None:
            votes = index.votes.scores(search_vectors(x), trained, rows)
        if mix.pair_weight and self.predictor.pairs is not None:
            pairs = self.predictor.pairs.of(rows, trained)
        return Candidates(ids, classifier, similarity, ridge, votes, pairs)

    def _frequency(self, mix: Mix) -> np.ndarray | None:
        return self.labels.log_frequency() if mix.frequency_weight else None

    def _parts(self, candidates: Candidates, mix: Mix, row: int) -> dict[str, np.ndarray]:
        """(K,) what each term of the mix adds to the scores of one product."""
        network, out = mix.network_weight, {}
        if network and mix.beta > 0:
            out["classifier"] = network * mix.beta * candidates.classifier[row]
        if network and mix.beta < 1:
            out["similarity"] = network * (1 - mix.beta) * candidates.similarity[row]
        frequency = self._frequency(mix)
        if frequency is not None:
            out["frequency"] = mix.frequency_weight * frequency[np.maximum(candidates.ids[row], 0)]
        named = {
            "ridge": (mix.ridge_weight, candidates.ridge),
            "votes": (mix.vote_weight, candidates.votes),
            "pairs": (mix.pair_weight, candidates.pairs),
        }
        for name, (weight, values) in named.items():
            if values is not None:
                out[name] = weight * values[row]
        return {name: np.asarray(values, np.float64) for name, values in out.items()}

    def _folded(self, question: Question, labels: np.ndarray) -> np.ndarray:
        """Places of the first label of each group of variants, but those of the products asked
        about.
        """
        variants, seen = self.catalog.variants, set()
        for member in question.members:
            label = None if member.uid is None else self.catalog.label(member.uid)
            if label is not None:
                seen.add(variants.group(label))
            else:
                seen |= variants.of_product(member.title, self._first_picture(member))
        kept = []
        for place, label in enumerate(labels):
            group = variants.group(int(label))
            if group not in seen:
                seen.add(group)
                kept.append(place)
        return np.array(kept, np.int64)

    def _first_picture(self, member: Asked) -> str:
        if member.row >= 0:
            return next(iter(self.catalog.model.picture_keys(member.row)), "")
        return key_of(member.new.pictures[0]) if member.new and member.new.pictures else ""

    def _popular(self, question: Question) -> _Ranked:
        allowed = self.labels.answerable()
        if question.allowed is not None:
            allowed = allowed & question.allowed
        allowed[question.excluded] = False
        labels, scores = popular(
            self.labels, self.catalog.attributes, question.category, allowed, question.query.k
        )
        return _Ranked(labels, scores.astype(np.float32), {"popularity": scores})

    def _named(self, of: Asked) -> Named:
        if of.uid is not None:
            return Named(of.uid, bool(of.title), self.catalog.texts(of.uid))
        new, most = of.new or NewProduct(), self.catalog.model.most_texts
        return Named(None, bool(of.title), kept_texts(new.title, new.texts, most))

    def _worded(
        self,
        question: Question,
        ranked: _Ranked,
        embedded: list[Embedded],
        members: list[int],
        asked: list,
    ) -> list[Answer]:
        uids = [self.catalog.uid(int(label)) for label in ranked.labels]
        why: Iterable = [()] * len(uids)
        if question.query.reasons and members and uids:
            of_members = [self._named(asked[row][0]) for row in members]
            answers = [
                Named(uid, bool(self.catalog.title(uid)), self.catalog.texts(uid)) for uid in uids
            ]
            x = _take(embedded, members)
            why = reasons(self.labels, x, of_members, ranked.labels, answers)
        return [
            Answer(
                uid,
                self.catalog.title(uid),
                float(score),
                {name: float(values[i]) for name, values in ranked.parts.items()},
                because,
                not members,
            )
            for i, (uid, score, because) in enumerate(zip(uids, ranked.scores, why))
        ]


def _alike(question: Question, wide: int) -> tuple:
    """Questions with the same key are answered together."""
    allowed = None if question.allowed is None else question.allowed.tobytes()
    return question.mix, question.modalities, allowed, wide


def _take(embedded: list[Embedded], rows: list[int]) -> list[Embedded]:
    """The products `rows`, at least one."""
    if rows == list(range(len(embedded[0].sizes))):
        return embedded
    return joined([one_of(embedded, row) for row in rows])


def _places(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The place in `ids` of each of `labels`, all of which are there."""
    order = np.argsort(ids, kind="stable")
    return order[np.searchsorted(ids[order], labels)]
