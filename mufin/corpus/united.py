"""Bags of several products together, such as of an outfit without one of its items."""

from __future__ import annotations

import copy

import numpy as np

from mufin.corpus.descriptors import DescriptorStore
from mufin.errors import MufinError
from mufin.ragged import Lists


def united(store: DescriptorStore, groups: Lists) -> DescriptorStore:
    """The store whose product i has the descriptors of all products in row i of `groups`.

    Those of one product after those of another; each lexical term once. The arrays of descriptors
    are those of `store`. Raises MufinError for early fusion, whose outputs are of whole products.
    """
    if store.fused is not None:
        raise MufinError("with encoder.fusion early or both, bags of products cannot be united")
    out = copy.copy(store)
    out.num_products = len(groups)
    if "image" in store.modalities:
        out.image_lists = _joined(store.image_lists, groups)
    if "text" in store.modalities:
        out.text_lists = _joined(store.text_lists, groups)
    if "lexical" in store.modalities:
        out.lexical = _distinct(_joined(store.lexical, groups))
    return out


def _joined(lists: Lists, groups: Lists) -> Lists:
    """Row i: the rows of `lists` that row i of `groups` names, one after the other."""
    rows = lists.take(groups.values)
    return Lists(rows.offsets[groups.offsets], rows.values)


def _distinct(lists: Lists) -> Lists:
    """The same rows with the first of equal values alone."""
    size = int(lists.values.max(initial=0)) + 1
    keys = lists.rows() * size + lists.values
    keep = np.zeros(len(keys), bool)
    keep[np.unique(keys, return_index=True)[1]] = True
    return lists.only(keep)
