"""The texts beside the title that the networks read, of products that come while serving."""

from __future__ import annotations

from collections.abc import Sequence

from mufin.corpus.cleaning import clean_title


def kept_texts(title: str, texts: Sequence[str], most: int | None = None) -> tuple[str, ...]:
    """The texts beside the title of one product, cleaned and chosen as the stage curate does.

    Without empty ones, the title and repetitions; with the title at most `most`, None: all.
    """
    if not texts:
        return ()
    title = clean_title(title)
    kept = tuple(t for t in dict.fromkeys(map(clean_title, texts)) if t not in ("", title))
    return kept if most is None else kept[: most - bool(title)]
