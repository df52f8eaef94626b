"""Queries checked and resolved: products, labels that may be answers, and the mix of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from mufin.errors import shown
from mufin.ranking.mix import Mix
from mufin.serving.catalog import Catalog
from mufin.serving.datapoints import Asked, Modalities
from mufin.serving.query import Query, QueryError

WEIGHTS = {field.name for field in fields(Mix)}


@dataclass(frozen=True, slots=True)
class Question:
    """A query whose names are resolved."""

    query: Query
    members: list[Asked]  # the products asked about
    avoid: list[Asked]
    modalities: Modalities
    excluded: np.ndarray  # labels that may not be answers
    allowed: np.ndarray | None  # (count,) bool labels that may; None: all
    mix: Mix

    @property
    def category(self) -> tuple[str, ...]:
        """That of the first product that has one."""
        return next((member.category for member in self.members if member.category), ())


class Questions:
    """Checks queries about one catalog."""

    def __init__(self, catalog: Catalog):
        self.catalog = catalog
        self.usable = tuple(catalog.model.params.encoder.modalities)

    def checked(self, query: Query) -> Question:
        """The query with its names resolved; raises QueryError, which says what is wrong.

        What is read of its pictures is remembered for the answer.
        """
        if isinstance(query.k, bool) or not isinstance(query.k, int) or query.k < 1:
            raise QueryError("k", f"k is {shown(query.k)}; give a whole number of at least 1")
        catalog = self.catalog
        members = [catalog.asked(uid, "uids") for uid in dict.fromkeys(query.uids)]
        if query.new is not None:
            catalog.datapoints.new_products.check(query.new)
            new = query.new
            members.append(Asked(new.title, None, -1, new, category=new.category))
        if not members:
            raise QueryError("uids", "no product is given; give uids, or a title or images")
        avoid = [catalog.asked(uid, "avoid") for uid in dict.fromkeys(query.avoid)]
        return Question(
            query,
            members,
            avoid,
            self._modalities(query),
            self._excluded(query),
            self._allowed(query),
            self._mix(query.mix),
        )

    def _modalities(self, query: Query) -> Modalities:
        """Those asked for, in the model's order; None if these are all."""
        if query.modalities is None:
            return None
        for name in query.modalities:
            if name not in self.usable:
                known = ", ".join(self.usable)
                text = f"modalities has {shown(name)}; this model has {known}"
                raise QueryError("modalities", text)
        chosen = tuple(name for name in self.usable if name in query.modalities)
        if not chosen:
            raise QueryError("modalities", "modalities is empty; leave it out for all")
        return None if chosen == self.usable else chosen

    def _excluded(self, query: Query) -> np.ndarray:
        uids = (*query.uids, *query.avoid, *query.exclude)
        labels = [label for uid in uids if (label := self.catalog.label(uid)) is not None]
        return np.unique(np.array(labels, np.int64))

    def _allowed(self, query: Query) -> np.ndarray | None:
        catalog, allowed = self.catalog, None
        if query.where:
            allowed = catalog.attributes.mask(query.where, catalog.labels.count)
        if query.candidates is not None:
            wanted = np.zeros(catalog.labels.count, bool)
            for uid in query.candidates:
                if not catalog.knows(uid):
                    text = f"{uid} is not a product of the catalog; leave it out of candidates"
                    raise QueryError("candidates", text)
                if (label := catalog.label(uid)) is not None:
                    wanted[label] = True
            allowed = wanted if allowed is None else allowed & wanted
        return allowed

    def _mix(self, weights: Mapping[str, float] | None) -> Mix:
        mix = self.catalog.model.mix
        for name, value in (weights or {}).items():
            if name not in WEIGHTS:
                text = f"mix has {shown(name)}; its weights are {', '.join(sorted(WEIGHTS))}"
                raise QueryError("mix", text)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not 0 <= value <= 1e6:
                raise QueryError("mix", f"mix.{name} is {shown(value)}; give a number from 0")
            if name == "beta" and value > 1:
                raise QueryError("mix", f"mix.beta is {shown(value)}; it must lie in [0, 1]")
        return replace(mix, **weights) if weights else mix
