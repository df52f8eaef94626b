"""One product, as the readers of catalogs give it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mufin.catalogs.attribute_cells import Values


@dataclass(slots=True)
class Product:
    """One product as found: the title and the image references are not cleaned."""

    uid: str
    title: str = ""
    images: list[str] = field(default_factory=list)  # URLs, or paths relative to the file
    related: list[str] = field(default_factory=list)  # uids, also of products not in the catalog
    category: list[str] = field(default_factory=list)  # from the most general to the most special
    weights: list[float] = field(default_factory=list)  # of `related`; empty: all 1
    other_ids: list[str] = field(default_factory=list)  # SKUs that relations and orders name it by
    attributes: Values = ()  # of the columns that are kept for filters, in their order; () for none
    texts: list[str] = field(default_factory=list)  # beside the title, such as a description
