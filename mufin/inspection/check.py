"""What `mufin check` looks at beside the settings: the catalog's first rows, and local encoders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mufin.errors import MufinError, shown
from mufin.params import ImageEncoderParams, Params, TextEncoderParams

LOCAL = "local-dir:"  # before a folder, in names of timm
GIVEN = ("pretrained", "random")  # weights that are no path


def check_catalog(params: Params) -> Iterator[str]:
    """Yields what the beginning of the catalog holds; relative paths begin in the current folder.

    Looks at the first products, the names of columns, and whether some related ids are found;
    at folders of encoders; never at the network. Raises MufinError for what stages would refuse.
    """
    yield from _check_encoders(params)
    s = params.download
    if s.source == "sample":
        yield f"the catalog is the built-in one of {s.sample.products:,} products"
        return
    if s.source == "sample-outfits":
        yield f"the catalog is made of {s.sample.outfits:,} built-in outfits"
        return
    # Here: with these come numpy, pyarrow and requests, which take a while to import.
    from mufin.catalogs.forms import FORMS
    from mufin.corpus.fetch import is_url
    from mufin.inspection.first_rows import check_products

    for name, location in (
        ("download.location", s.location),
        ("download.interactions.location", s.interactions.location),
        ("download.labels.location", s.labels.location),
    ):
        urls = [item for item in _items(location) if is_url(item)]
        if urls:
            yield f"{name} has the URL {shown(urls[0])}, which is not looked at here"
            return
    if s.outfits.split:
        yield _outfits(s.location or [], s.outfits.split)
        return
    if s.source not in ("catalog", *FORMS):  # a released set, which only the stage reads
        for item in _items(s.location):
            found = "exists" if os.path.exists(os.path.expanduser(item)) else "does not exist here"
            yield f"download.location {shown(item)} {found}"
        return
    yield from check_products(params)


def _outfits(location: str | list[str], kind: str) -> str:
    """What the files of outfits hold; raises MufinError if they are not those of the release."""
    from mufin.catalogs.forms.polyvore_outfits import Release, release_folder

    folder = release_folder(location)
    counts = {split: len(outfits) for split, outfits in Release(folder, kind).outfits.items()}
    said = ", ".join(f"{count:,} of {split}" for split, count in counts.items())
    return f"{folder} has outfits, in the split {kind}: {said}"


def _items(location: str | list[str] | None) -> list[str]:
    return location if isinstance(location, list) else [location] if location else []


# Encoders


def _check_encoders(params: Params) -> Iterator[str]:
    """Raises MufinError for a folder or a file of an encoder that is not there."""
    encoder = params.encoder
    part: ImageEncoderParams | TextEncoderParams
    for name, part in (("image", encoder.image), ("text", encoder.text)):
        if name not in encoder.modalities or part.kind == "vectors":
            continue
        setting = f"encoder.{name}"
        if part.weights not in GIVEN and not os.path.exists(os.path.expanduser(part.weights)):
            raise MufinError(
                f"{setting}.weights is {shown(part.weights)}, which does not exist; set it to "
                "pretrained, random or the path of a file"
            )
        if part.weights == "random":
            continue
        folder = Path(part.name.removeprefix(LOCAL)).expanduser()
        if folder.is_dir():
            yield f"{setting}.name is the folder {folder}"
        elif part.name.startswith((LOCAL, "/", "./", "../", "~")):
            raise MufinError(
                f"{setting}.name is {shown(part.name)}, a folder that does not exist; correct the "
                "path, or set it to the name of a model"
            )
        else:
            yield f"{setting}.name is the model {part.name}, fetched unless it is on the machine"
