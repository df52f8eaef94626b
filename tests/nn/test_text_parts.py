"""Parts of texts: whole batches of all texts, in the order of their lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mufin.corpus.ragged_tokens import RaggedTokens
from mufin.nn import text_parts
from mufin.nn.text_parts import TokenisedTexts, parts_of


def slow_parts(lengths: list[int], size: int, most: int) -> list[list[int]]:
    """The starts of the batches of each part, by a loop."""
    parts, before, last = [], 0, -1
    for start in range(0, len(lengths), size):
        batch = lengths[start : start + size]
        if before // most != last:
            parts.append([])
        parts[-1].append(start)
        last = before // most
        before += len(batch) * max(*batch, 1)
    return parts


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 7), st.integers(1, 90))
def test_parts_are_whole_batches_of_all_texts(lengths, size, most):
    lengths = sorted(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_parts, "PART", most)
        parts = parts_of(np.array(lengths, np.int32), size)
    assert [list(part) for part in parts] == slow_parts(lengths, size, most)
    ends = [0, *(part.stop for part in parts)]
    assert [part.start for part in parts] == ends[:-1] and ends[-1] == len(lengths)


@given(st.lists(st.lists(st.integers(1, 99), max_size=5), min_size=1, max_size=12), st.data())
def test_padded_and_ragged_texts_give_the_same_batches(texts, data):
    lengths = np.array([len(text) for text in texts], np.int32)
    padded = np.array([text + [0] * (6 - len(text)) for text in texts], np.int32)
    flat = np.array([token for text in texts for token in text], np.int32)
    rows = np.array(data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1)))
    one, two = (TokenisedTexts(tokens, lengths) for tokens in (padded, RaggedTokens(flat, lengths)))
    (tokens, counts), (others, also) = one.batch(rows), two.batch(rows)
    assert np.array_equal(tokens, padded[rows, : max(lengths[rows].max(), 1)])
    assert np.array_equal(tokens, others) and np.array_equal(counts, also)
    wanted = [token for row in rows for token in texts[row]]
    assert one.flat(rows).tolist() == two.flat(rows).tolist() == wanted
