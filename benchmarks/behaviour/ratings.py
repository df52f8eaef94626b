"""A seeded catalog with ratings in the columns of MovieLens, as files that the pipeline reads.

The products, their titles and pictures are those of the built-in sample (`mufin.corpus.sample`), of
which only the relations are left out. Users rate in sessions, as those of MovieLens do: a product
first, then a few that go with it, by the odds that the sample draws its relations with. So titles
and pictures tell which products occur together, and popularity and chance decide the rest.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mufin.corpus.sample import World, invent_world, relation_odds, sample_catalog

START, YEAR = 1_700_000_000, 365 * 86_400  # seconds since 1970, seconds
LATE = 0.2  # fraction of the products that first appear in the last `LATE_PART` of the year
LATE_PART = 0.4
MEMBERS = (2, 5)  # fewest and most products in a session beside its first
NOISE = 0.15  # fraction of them that are any product
STEP = 60  # seconds between two ratings of a session


def write_catalog(folder: Path, products: int, sessions: int, users: int, seed: int) -> None:
    """Writes catalog.jsonl, its pictures and ratings.csv (userId, movieId, rating, timestamp)."""
    rows, images, _ = sample_catalog(products, seed)
    (folder / "img").mkdir(parents=True)
    with open(folder / "catalog.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            kept = {name: row[name] for name in ("ASIN", "title", "images", "category")}
            file.write(json.dumps(kept) + "\n")
    for reference, content in images.items():
        (folder / reference).write_bytes(content)
    ids = [row["ASIN"] for row in rows[:products]]
    with open(folder / "ratings.csv", "w", encoding="utf-8") as file:
        file.write("userId,movieId,rating,timestamp\n")
        for user, product, rating, second in _ratings(
            invent_world(products, seed), sessions, users, seed
        ):
            file.write(f"{user},{ids[product]},{rating},{second}\n")


def _ratings(
    world: World, sessions: int, users: int, seed: int
) -> list[tuple[int, int, float, int]]:
    """(user, product, rating, seconds since 1970) of all sessions, by time."""
    rng = np.random.default_rng([seed, 5])
    products = len(world.kind)
    first_seen = np.zeros(products)
    late = rng.random(products) < LATE
    first_seen[late] = 1 - LATE_PART * rng.random(int(late.sum()))
    asked = (
        world.popularity**0.5
    )  # users begin with popular products, less so than labels are drawn
    odds = np.stack([relation_odds(world, product) for product in range(products)])
    out = []
    for when in np.sort(rng.random(sessions)):
        there = first_seen <= when
        anchor = _drawn(asked * there, rng)
        session = [anchor]
        for _ in range(rng.integers(MEMBERS[0], MEMBERS[1] + 1)):
            weights = there.astype(float) if rng.random() < NOISE else odds[anchor] * there
            session.append(_drawn(weights, rng))
        user, start = int(rng.integers(users)), START + int(when * YEAR)
        for step, product in enumerate(session):
            rating = float(rng.choice([3.5, 4.0, 4.5, 5.0]))
            out.append((user, product, rating, start + step * STEP))
    return out


def _drawn(weights: np.ndarray, rng: np.random.Generator) -> int:
    """A position, drawn in proportion to the weights."""
    bounds = np.cumsum(weights)
    return int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))
