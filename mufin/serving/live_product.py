"""A product that is added or changed while the server runs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LiveProduct:
    """What a caller gives of a product: it replaces all that was known of this uid."""

    uid: str
    title: str = ""  # '' for none
    category: tuple[str, ...] = ()  # from the widest to the narrowest
    attributes: dict[str, str | float | bool] = field(default_factory=dict)  # for `where`
    pictures: tuple[bytes, ...] = ()  # encoded
