"""Answers of a recommender: products with scores, their parts, and the reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One descriptor of a product."""

    uid: str | None  # of the product; None for one that is not in the catalog
    kind: str  # title, text, words or picture; a text is one beside the title
    number: int  # of the text or picture in its product, from 0; 0 for title and words
    text: str = ""  # the first words of a text; '' for the other kinds

    def content(self) -> dict[str, str | int | None]:
        """As JSON: its fields; the words only of a text."""
        names = ("uid", "kind", "number", *(("text",) if self.kind == "text" else ()))
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Reason:
    """A descriptor of a product asked about, and the descriptor of the answer that it goes to."""

    query: Descriptor
    answer: Descriptor
    weight: float  # [0, 1] by attention, [-1, 1] by cosine
    by: str  # attention (the weight in A_C) or cosine (where there is no A_C)


@dataclass(frozen=True, slots=True)
class Answer:
    """One recommended product."""

    uid: str
    title: str
    score: float  # higher is better; the sum of the parts
    parts: dict[str, float]  # classifier, similarity, others: what each adds to the score
    why: tuple[Reason, ...] = ()  # the strongest first; only where the query asks for them
    fallback: bool = False  # True: by popularity, as the product asked about has no descriptor


@dataclass(frozen=True, slots=True)
class Product:
    """What is known of a product of the catalog."""

    uid: str
    title: str
    category: tuple[str, ...]
    attributes: dict[str, str | float | bool]  # columns that were kept for `where`
    pictures: tuple[str, ...]  # keys in the image store
    answerable: bool  # whether it can be an answer
    live: bool  # whether it was added or changed after training
    texts: tuple[str, ...] = ()  # beside the title, such as a description
