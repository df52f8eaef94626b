"""Titles to tokens for the text encoder E_T (MUFIN Sec. 3), and to lexical terms.

Lexical terms are the word n-grams of a title. The paper does not have them. They help in small
catalogs, where rare words such as the names of product series matter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mufin.corpus.model_hub import HubUnreachable, loaded, no_copy
from mufin.errors import MufinError
from mufin.ragged import Lists

if TYPE_CHECKING:
    import tokenizers
    from tokenizers import models
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

Tokenizer: TypeAlias = "PreTrainedTokenizerBase"
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# A word; model numbers such as x-200 or 3/4 are one word.
WORD = re.compile(r"[^\W_]+(?:[.\-/][^\W_]+)*")


def learn_wordpiece(titles: list[str], size: int, max_tokens: int) -> PreTrainedTokenizerFast:
    """A BERT-style WordPiece tokenizer with at most `size` entries, learnt from `titles`.

    The same titles always give the same tokenizer.
    """
    from tokenizers import decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    # The trainer gives the pieces "##c" of single characters their numbers in the order of a hash
    # map, which changes from run to run, and breaks ties between merges by these numbers. So a
    # first training of size 0 finds these pieces, and the second gets them in alphabetical order.
    special = list(SPECIAL.values())
    pieces = sorted(t for t in _trained(titles, 0, special).get_vocab() if t.startswith("##"))
    vocabulary = _trained(titles, size, special + pieces).get_vocab()
    # A new model from the vocabulary alone, in which the pieces are no longer special tokens.
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
    """A tokenizer with the normaliser and the word splitter of BERT."""
    import tokenizers
    from tokenizers import normalizers, pre_tokenizers

    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _trained(titles: list[str], size: int, first: list[str]) -> tokenizers.Tokenizer:
    """A WordPiece tokenizer learnt from `titles`, with `first` as the first entries."""
    from tokenizers import models, trainers

    tokenizer = _bert(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=first, show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(titles, trainer)
    return tokenizer


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of an AutoModel, by name or local folder; raises MufinError if it fails."""
    try:
        return loaded(name, lambda: _pretrained(name))
    except HubUnreachable as error:
        raise MufinError(no_copy("encoder.text.name", name, error)) from None
    except Exception as error:  # hubs and folders fail with many classes of error
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise MufinError(
            f"encoder.text.name is {name!r} and its tokenizer cannot be loaded ({reason}); "
            "correct the name, or set it to a local folder if there is no network"
        ) from None


def _pretrained(name: str) -> Tokenizer:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    # From a config without a vocabulary, transformers makes one that knows no words.
    if len(tokenizer) <= len(SPECIAL):
        raise MufinError("it has no vocabulary")
    return tokenizer


def tokenise(
    tokenizer: Tokenizer, titles: list[str], max_tokens: int, chunk: int = 65536
) -> tuple[np.ndarray, np.ndarray]:
    """(P, max_tokens) int32 token ids, padded with 0, and their (P,) int32 lengths.

    Longer titles are cut. An empty title has length 0 and no tokens, not even [CLS] and [SEP]: its
    place in the bag stays empty.
    """
    tokens = np.zeros((len(titles), max_tokens), np.int32)
    lengths = np.zeros(len(titles), np.int32)
    for row, ids in enumerate(_token_ids(tokenizer, titles, max_tokens, chunk)):
        tokens[row, : len(ids)], lengths[row] = ids, len(ids)
    return tokens, lengths


def ragged_tokens(
    tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int, chunk: int = 65536
) -> tuple[np.ndarray, np.ndarray]:
    """The int32 token ids of all texts in turn, and the (R,) int32 lengths of the texts.

    Longer texts are cut. No text may be empty.
    """
    parts, lengths = [np.zeros(0, np.int32)], np.zeros(len(texts), np.int32)
    for row, ids in enumerate(_token_ids(tokenizer, texts, max_tokens, chunk)):
        parts.append(np.array(ids, np.int32))
        lengths[row] = len(ids)
    return np.concatenate(parts), lengths


def _token_ids(
    tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int, chunk: int
) -> Iterator[list[int]]:
    """The token ids of each text; none of an empty one."""
    for start in range(0, len(texts), chunk):
        part = list(texts[start : start + chunk])
        encoded = tokenizer(part, truncation=True, max_length=max_tokens)["input_ids"]
        for text, ids in zip(part, encoded):
            yield ids if text else []


def terms_of(title: str, ngrams: int, further: Sequence[str] = ()) -> list[str]:
    """The distinct word n-grams of a title, n from 1 to `ngrams`: all words, then all pairs, ...

    Then come those of the `further` texts of the product that are not among them.
    """
    texts = (title, *further)
    return list(dict.fromkeys(t for text in texts for t in _ngrams_of(text, ngrams)))


def _ngrams_of(text: str, longest: int) -> Iterator[str]:
    return _ngrams(WORD.findall(text.lower()), longest)


def _ngrams(words: list[str], longest: int) -> Iterator[str]:
    for n in range(1, longest + 1):
        for start in range(len(words) - n + 1):
            yield " ".join(words[start : start + n])


def lexical_terms(
    titles: Sequence[str],
    train: np.ndarray,
    ngrams: int,
    min_count: int,
    max_terms: int,
    further: Sequence[Sequence[str]] | None = None,
) -> tuple[list[str], Lists]:
    """The vocabulary of lexical terms, and the (P,) rows of int32 term ids of all products.

    The vocabulary has the n-grams that at least `min_count` of the products `train` (row numbers)
    contain, the most frequent first, at most `max_terms`. The index of a term is its id. Equally
    frequent terms are in alphabetical order, whatever the order of the products. The n-grams of a
    product are those of its title and of its `further` texts (P,).
    """
    others = [()] * len(titles) if further is None else further
    counts = Counter(term for p in train for term in terms_of(titles[p], ngrams, others[p]))
    frequent = [term for term, count in counts.items() if count >= min_count]
    kept = sorted(frequent, key=lambda term: (-counts[term], term))[:max_terms]
    ids = {term: i for i, term in enumerate(kept)}
    rows = [
        [ids[t] for t in terms_of(title, ngrams, more) if t in ids]
        for title, more in zip(titles, others)
    ]
    return kept, Lists.of_rows(rows, np.int32)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that `load_tokenizer` reads into `folder`."""
    tokenizer.save_pretrained(folder)
