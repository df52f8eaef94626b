"""Products that are added, changed or deleted while the server runs."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass, field

from mufin.errors import shown
from mufin.serving.query import QueryError, Scalar

LONGEST_UID = 256  # characters
EXACT = 2**53  # the largest whole number up to which a float64 holds each one


@dataclass(frozen=True, slots=True)
class LiveProduct:
    """What a caller gives of a product: it replaces all that was known of this uid.

    Whole numbers among the attributes become floats, so that a value has one kind. Raises
    QueryError, which names the field, for a value of another kind.
    """

    uid: str
    title: str = ""  # '' for none
    category: tuple[str, ...] = ()  # from the widest to the narrowest
    attributes: dict[str, Scalar] = field(default_factory=dict)  # for `where`
    pictures: tuple[bytes, ...] = ()  # encoded, such as the bytes of JPEG files
    texts: tuple[str, ...] = ()  # beside the title, such as a description

    def __post_init__(self) -> None:
        check_uid(self.uid)
        _check_text("title", self.title)
        for name, values in (("category", self.category), ("texts", self.texts)):
            if not isinstance(values, tuple):
                raise QueryError(name, f"{name} is {shown(values)}; give a list of texts")
            for text in values:
                _check_text(name, text)
        if not isinstance(self.attributes, dict):
            raise QueryError(
                "attributes", f"attributes is {shown(self.attributes)}; give names and their values"
            )
        checked = {name: _attribute(name, value) for name, value in self.attributes.items()}
        object.__setattr__(self, "attributes", checked)
        if not isinstance(self.pictures, tuple):
            raise QueryError("pictures", "pictures is not a list; give the bytes of each picture")
        for number, picture in enumerate(self.pictures):
            if not isinstance(picture, bytes) or not picture:
                raise QueryError(
                    "pictures",
                    f"picture {number} is {shown(picture)}; give the bytes of a picture, such as a "
                    "JPEG file",
                )


@dataclass(frozen=True, slots=True)
class Upsert:
    """A product that is added, or replaces the one of the same uid."""

    product: LiveProduct


@dataclass(frozen=True, slots=True)
class Delete:
    """The product of this uid is deleted, whether the store or the catalog has it."""

    uid: str

    def __post_init__(self) -> None:
        check_uid(self.uid)


Change = Upsert | Delete


def check_uid(uid: object) -> None:
    """Raises QueryError unless `uid` can be the id of a product."""
    if not isinstance(uid, str) or not uid:
        raise QueryError("uid", f"uid is {shown(uid)}; give the id of the product, a text")
    if len(uid) > LONGEST_UID:
        raise QueryError(
            "uid",
            f"uid {shown(uid)} has {len(uid):,} characters; give an id of at most {LONGEST_UID}",
        )
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in uid):
        raise QueryError(
            "uid", f"uid {shown(uid)} holds a control character or half a character; remove it"
        )


def _check_text(name: str, text: object) -> None:
    """Raises QueryError unless `text` is a text that UTF-8 can write."""
    if not isinstance(text, str):
        raise QueryError(name, f"{name} holds {shown(text)}; give a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QueryError(
            name,
            f"{name} {shown(text)} holds half a character (a surrogate) at place {error.start}; "
            "remove it",
        ) from None


def _attribute(name: object, value: object) -> Scalar:
    """The value as a text, a flag or a finite float."""
    if not isinstance(name, str) or not name:
        raise QueryError("attributes", f"an attribute is called {shown(name)}; give a name")
    _check_text("attributes", name)
    if isinstance(value, str):
        _check_text("attributes", value)
        return str(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) > EXACT:
        raise QueryError(
            "attributes",
            f"attribute {shown(name)} is {shown(value)}, which no float64 holds exactly; give it "
            "as a text",
        )
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    raise QueryError(
        "attributes",
        f"attribute {shown(name)} is {shown(value)}; give a text, a finite number, true or false",
    )
