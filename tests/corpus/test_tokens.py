"""WordPiece learnt from titles, token rows, lexical terms."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mufin.corpus.tokens import (
    learn_wordpiece,
    lexical_terms,
    load_tokenizer,
    save_tokenizer,
    terms_of,
    tokenise,
)
from mufin.errors import MufinError
from tests.support.projects import ROOT

WORDS = [
    "Lamp",
    "kettle",
    "Zebra",
    "x-200",
    "3/4",
    "USB",
    "don't",
    "mug",
    "anchor",
    "blue",
    "jumpy",
    "quilt",
    "(new)",
    "50%",
]


def some_titles(n: int = 300, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [
        " ".join(rng.choice(WORDS, rng.integers(0, 9))) + (f" no {i}" if i % 3 else "")
        for i in range(n)
    ]


LEARN = """
import hashlib, json, sys
from mufin.corpus.tokens import learn_wordpiece
tokenizer = learn_wordpiece(json.load(sys.stdin), 300, 16).backend_tokenizer
print(hashlib.sha256(tokenizer.to_str().encode()).hexdigest())
"""


def test_the_same_titles_give_the_same_tokenizer_everywhere():
    """Also in another process: the trainer's hash maps are seeded anew for each map and process."""
    digests = {
        hashlib.sha256(
            learn_wordpiece(some_titles(), 300, 16).backend_tokenizer.to_str().encode()
        ).hexdigest()
        for _ in range(5)
    }
    done = subprocess.run(
        [sys.executable, "-c", LEARN],
        input=json.dumps(some_titles()),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert digests == {done.stdout.strip()}


def test_the_order_of_titles_does_not_matter():
    a, b = (learn_wordpiece(t, 300, 16).get_vocab() for t in (some_titles(), some_titles()[::-1]))
    assert a == b


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.text(
            st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="["), max_size=60
        ),
        min_size=1,
        max_size=30,
    )
)
def test_ascii_titles_learnt_from_have_no_unknown_token(titles):
    """Without brackets: "[SEP]" in a title is the special token, as in BERT's tokenizer."""
    tokenizer = learn_wordpiece(titles, 64, 16)
    tokens = tokenizer(titles)["input_ids"]
    assert not any(tokenizer.unk_token_id in row for row in tokens)
    for title, row in zip(titles, tokens):
        assert tokenizer.decode(row[1:-1]).replace(" ", "") == title.lower().replace(" ", "")


def test_special_tokens_come_first_and_padding_is_zero():
    tokenizer = learn_wordpiece(some_titles(), 300, 16)
    assert [tokenizer.convert_ids_to_tokens(i) for i in range(5)] == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
    ]
    assert tokenizer.pad_token_id == 0 and tokenizer.all_special_ids == [1, 3, 0, 2, 4]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_the_vocabulary_has_at_most_the_entries_asked_for():
    titles = [
        f"{a}{b} {b}{c}" for a in "abcde" for b in ("lamp", "mug", "tote") for c in "vwxyz"
    ] * 3
    assert [len(learn_wordpiece(titles, size, 16)) for size in (50, 64)] == [50, 64]
    assert 64 < len(learn_wordpiece(titles, 1000, 16)) < 100  # all there is to learn


def test_frequent_words_are_one_token():
    tokenizer = learn_wordpiece(["kettle lamp"] * 50 + some_titles(), 300, 16)
    assert tokenizer.tokenize("Kettle LAMP") == ["kettle", "lamp"]


def test_token_rows_are_padded_and_cut():
    titles = some_titles() + ["", "mug", "mug " * 40]
    tokenizer = learn_wordpiece(titles, 300, 12)
    tokens, lengths = tokenise(tokenizer, titles, 12, chunk=7)
    assert tokens.shape == (len(titles), 12) and tokens.dtype == lengths.dtype == np.int32
    for title, row, length in zip(titles, tokens, lengths):
        if not title:
            assert length == 0 and not row.any()
            continue
        words = tokenizer(title, add_special_tokens=False)["input_ids"][:10]
        assert row.tolist() == [2, *words, 3] + [0] * (10 - len(words)) and length == len(words) + 2


def test_empty_titles_still_give_a_tokenizer():
    tokenizer = learn_wordpiece(["", ""], 64, 8)
    tokens, lengths = tokenise(tokenizer, ["", ""], 8)
    assert not tokens.any() and lengths.tolist() == [0, 0]
    assert tokenise(tokenizer, [], 8)[0].shape == (0, 8)


def test_a_saved_tokenizer_loads_from_its_folder(tmp_path):
    titles = some_titles()
    tokenizer = learn_wordpiece(titles, 300, 16)
    save_tokenizer(tokenizer, tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(tokenise(again, titles, 16), tokenise(tokenizer, titles, 16))
    )


def test_a_folder_without_a_tokenizer_names_the_setting(tmp_path):
    with pytest.raises(
        MufinError, match=r"encoder\.text\.name is .* tokenizer cannot be loaded"
    ) as error:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_tokenizer_error_without_text_is_one_sentence(monkeypatch, tmp_path):
    def dies(name):
        raise AssertionError

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", dies)
    with pytest.raises(MufinError, match=r"tokenizer cannot be loaded \(AssertionError\)"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_without_special_tokens_cuts_titles(tmp_path):
    """As GPT-2's: byte pairs, no [CLS] and no [SEP], no special tokens first in the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(
        WORDS,
        trainers.BpeTrainer(
            vocab_size=300,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    save_tokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer), tmp_path)
    titles = ["kettle lamp", "", "mug " * 9]
    tokens, lengths = tokenise(load_tokenizer(str(tmp_path)), titles, 6)
    for title, row, length in zip(titles, tokens, lengths):
        ids = tokenizer.encode(title).ids[:6]
        assert row.tolist() == ids + [0] * (6 - len(ids)) and length == len(ids)


# Lexical terms


def slow_lexical(titles, known, ngrams, min_count, max_terms):
    """Term by term, title by title; a word is letters and digits, with single . - / inside."""

    def words(title):
        out, word = [], ""
        text = title.lower() + "  "
        for i, c in enumerate(text[:-1]):
            inside = c in ".-/" and word and word[-1].isalnum() and text[i + 1].isalnum()
            if c.isalnum() or inside:
                word += c
            elif word:
                out.append(word)
                word = ""
        return out

    def grams(title):
        w, out = words(title), []
        for n in range(1, ngrams + 1):
            for i in range(len(w)):
                gram = " ".join(w[i : i + n])
                if i + n <= len(w) and gram not in out:
                    out.append(gram)
        return out

    counts = Counter()
    for p in known:
        for gram in grams(titles[p]):
            counts[gram] += 1
    terms = sorted([t for t in counts if counts[t] >= min_count], key=lambda t: (-counts[t], t))[
        :max_terms
    ]
    return terms, [[terms.index(g) for g in grams(title) if g in terms] for title in titles]


@pytest.mark.parametrize("ngrams", [1, 2, 3])
@pytest.mark.parametrize("min_count, max_terms", [(1, 10**6), (2, 10**6), (3, 12), (10**6, 5)])
def test_lexical_terms_are_those_of_a_slow_loop(ngrams, min_count, max_terms):
    titles = some_titles(120, 3)
    titles[5] = titles[70] = ""
    known = np.sort(np.random.default_rng(1).permutation(120)[:70])
    terms, rows = lexical_terms(titles, known, ngrams, min_count, max_terms)
    slow_terms, slow_rows = slow_lexical(titles, known, ngrams, min_count, max_terms)
    assert terms == slow_terms
    assert [rows[i].tolist() for i in range(len(rows))] == slow_rows
    assert rows.values.dtype == np.int32 and len(rows) == 120


def test_terms_are_counted_in_known_products_found_in_all():
    titles = ["red mug", "red mug", "blue mug", "blue mug", "blue mug"]
    terms, rows = lexical_terms(titles, np.array([0, 1, 2]), 2, 2, 100)
    assert terms == ["mug", "red", "red mug"]  # blue is in one known title only
    assert rows[4].tolist() == [0] and rows[0].tolist() == [1, 0, 2]


def test_a_word_twice_in_a_title_counts_once():
    assert lexical_terms(["mug mug", "cup"], np.array([0, 1]), 1, 2, 100)[0] == []


def test_model_numbers_are_one_word():
    assert terms_of("X-200 (3/4 inch), v1.5 snake_case a-", 1) == [
        "x-200",
        "3/4",
        "inch",
        "v1.5",
        "snake",
        "case",
        "a",
    ]


def test_empty_titles_and_no_products_have_no_terms():
    terms, rows = lexical_terms(["", "", "..."], np.array([0, 1, 2]), 2, 1, 10)
    assert terms == [] and rows.offsets.tolist() == [0, 0, 0, 0] and not len(rows.values)
    assert len(lexical_terms([], np.zeros(0, np.int64), 2, 1, 10)[1]) == 0
