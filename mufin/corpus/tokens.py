"""Titles to tokens (WordPiece, learnt where there is none) and to lexical terms (word n-grams)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mufin.errors import MufinError
from mufin.ragged import Lists

Tokenizer = PreTrainedTokenizerBase
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
WORD = re.compile(
    r"[^\W_]+(?:[.\-/][^\W_]+)*"
)  # words, and model numbers such as x-200 or 3/4 as one


def learn_wordpiece(titles: list[str], size: int, max_tokens: int) -> PreTrainedTokenizerFast:
    """A BERT-style WordPiece tokenizer of at most `size` entries learnt from `titles`; the same titles, the same one."""
    # The trainer numbers the pieces "##c" of single characters in the order of a hash map, and ties between merges fall by
    # number; so they are found first and given to it in alphabetical order.
    special = list(SPECIAL.values())
    pieces = sorted(t for t in _trained(titles, 0, special).get_vocab() if t.startswith("##"))
    vocabulary = _trained(titles, size, special + pieces).get_vocab()
    tokenizer = _bert(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    ends = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_tokens, **SPECIAL
    )


def _bert(model: models.WordPiece) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _trained(titles: list[str], size: int, first: list[str]) -> tokenizers.Tokenizer:
    """WordPiece learnt from `titles` whose first entries are `first`."""
    tokenizer = _bert(models.WordPiece(unk_token="[UNK]"))
    tokenizer.train_from_iterator(
        titles,
        trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=first, show_progress=False, min_frequency=2
        ),
    )
    return tokenizer


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of an AutoModel name or folder; raises MufinError where it is not to be had."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        if len(tokenizer) <= len(
            SPECIAL
        ):  # from a config alone transformers makes one that knows no words
            raise MufinError("it has no vocabulary")
        return tokenizer
    except Exception as error:  # hubs and folders fail in many classes of their own
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise MufinError(
            f"encoder.text.name is {name!r} and its tokenizer cannot be had ({reason}); "
            "without a network name a local folder"
        ) from None


def tokenise(
    tokenizer: Tokenizer, titles: list[str], max_tokens: int, chunk: int = 65536
) -> tuple[np.ndarray, np.ndarray]:
    """(P, max_tokens) int32, 0-padded, and (P,) int32 lengths; an empty title has length 0 and no tokens."""
    tokens = np.zeros((len(titles), max_tokens), np.int32)
    lengths = np.zeros(len(titles), np.int32)
    for start in range(0, len(titles), chunk):
        part = titles[start : start + chunk]
        for row, ids in enumerate(
            tokenizer(part, truncation=True, max_length=max_tokens)["input_ids"], start
        ):
            if titles[row]:
                tokens[row, : len(ids)], lengths[row] = ids, len(ids)
    return tokens, lengths


def terms_of(title: str, ngrams: int) -> list[str]:
    """The distinct word n-grams of a title, n up to `ngrams`, in order of appearance."""
    words = WORD.findall(title.lower())
    return list(
        dict.fromkeys(
            " ".join(words[i : i + n])
            for n in range(1, ngrams + 1)
            for i in range(len(words) - n + 1)
        )
    )


def lexical_terms(
    titles: list[str], train: np.ndarray, ngrams: int, min_count: int, max_terms: int
) -> tuple[list[str], Lists]:
    """(terms, Lists of (P,) rows of term ids): terms in at least `min_count` of the `train` titles, the most frequent
    first, ties by alphabet."""
    counts = Counter(term for p in train for term in terms_of(titles[p], ngrams))
    kept = sorted((t for t, c in counts.items() if c >= min_count), key=lambda t: (-counts[t], t))[
        :max_terms
    ]
    ids = {term: i for i, term in enumerate(kept)}
    rows = [[ids[t] for t in terms_of(title, ngrams) if t in ids] for title in titles]
    return kept, Lists.of_rows(rows, np.int32)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.save_pretrained(folder)
