"""Variants of one product: titles up to size and colour, and shared pictures."""

from __future__ import annotations

import pytest

from mufin.serving.variants import PLACEHOLDER, Variants, plain_title


@pytest.mark.parametrize(
    "one, other",
    [
        ("Oak mug, small, red", "Oak Mug LARGE blue"),
        ("Cable 2m", "Cable 3 m"),
        ("Shirt XL (navy)", "Shirt S"),
        ("Screws 100 pcs", "screws, 50 pieces"),
    ],
)
def test_size_and_colour_do_not_tell_titles_apart(one, other):
    assert plain_title(one) == plain_title(other)


@pytest.mark.parametrize(
    "one, other", [("Oak mug", "Oak bowl"), ("Red", "Blue"), ("iPhone 12 case", "iPad 12 case")]
)
def test_other_words_tell_titles_apart(one, other):
    assert plain_title(one) != plain_title(other)


def test_titles_and_pictures_link_variants():
    titles = ["Oak mug red", "Oak mug blue", "Tea cup", "Teacup", "", ""]
    variants = Variants(titles, ["a", "b", "c", "c", "", "d"])
    groups = variants.groups(range(6))
    assert groups[0] == groups[1] and groups[2] == groups[3]
    assert len(set(groups.tolist())) == 4  # products without a title are no variants
    assert variants.of_product("OAK MUG", "c") == {groups[0], groups[2]}
    assert variants.of_product("", "") == set()


def test_a_picture_of_many_titles_is_a_placeholder():
    count = PLACEHOLDER + 1
    titles = [f"thing {chr(97 + i)}{chr(97 + i)}" for i in range(count)]
    variants = Variants(titles, ["same"] * count)
    assert len(set(variants.groups(range(count)).tolist())) == count
    few = Variants(titles[:3], ["same"] * 3)
    assert len(set(few.groups(range(3)).tolist())) == 1


def test_added_products_join_their_group():
    variants = Variants(["Oak mug red"], ["a"])
    variants.set(1, "oak mug, green", "x")
    variants.set(2, "Bowl", "x")
    assert len(set(variants.groups(range(3)).tolist())) == 1
