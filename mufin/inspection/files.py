"""The files that were given, and which tool wrote each of them."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from mufin.catalogs.forms import FORMS, located
from mufin.catalogs.forms.recognition import recognised
from mufin.catalogs.opening import NO_DATA
from mufin.corpus.fetch import is_url
from mufin.errors import MufinError, shown
from mufin.inspection.look import Look, look_at

RELEASED = ("mm-amazontitles", "lf-amazontitles")
MARKS = ("trn_X_Y.txt", "trn.json", "trn.json.gz")  # files of every released set
PICTURES = ("img.urls.txt", "img.bin")  # files of released sets with pictures
MOST = 500  # files
OTHERS = (*NO_DATA, ".yaml", ".yml", ".py", ".log", ".npy", ".npz", ".bak")
POLYVORE = "polyvore_item_metadata.json"
NAMED = {  # files without names of columns
    "u.item": ("movielens", "products"),
    "u.data": ("movielens", "interactions"),
    POLYVORE: ("polyvore", "products"),
}


@dataclass(slots=True)
class Given:
    """What was given, sorted."""

    looks: list[Look] = field(default_factory=list)
    released: str = ""  # a released data set: its form, and
    folder: str = ""  # its folder or zip
    left: list[tuple[Path, str]] = field(default_factory=list)  # files not used, and why


@dataclass(frozen=True, slots=True)
class Origin:
    """The form of a file, and whether it has products or interactions."""

    source: str
    kind: str
    what: str  # in words


def given_files(texts: list[str], encoding: str | None) -> Given:
    """Looks at the files of paths, folders and globs; raises MufinError for what is not there."""
    given, paths = Given(), dict[Path, None]()
    for text in texts:
        if is_url(text):
            raise MufinError(f"{shown(text)} is a URL; fetch the file, then name it here")
        path = Path(text).expanduser()
        if form := released_form(path):
            given.released, given.folder = form, str(path)
        elif path.is_dir():
            paths |= dict.fromkeys(_in_folder(path))
        elif path.is_file():
            paths[path] = None
        else:
            found = [Path(p) for p in sorted(glob.glob(str(path))) if os.path.isfile(p)]
            if not found:
                raise MufinError(f"{shown(text)} does not exist; name files, folders or globs")
            paths |= dict.fromkeys(found)
    if given.released and (paths or len(texts) > 1):
        raise MufinError(f"{given.folder} is a released data set; name it alone")
    if len(paths) > MOST:
        raise MufinError(f"there are {len(paths)} files; name {MOST} at most, or a glob of a part")
    for path in paths:
        try:
            given.looks.append(look_at(path, encoding))
        except MufinError as error:
            if len(paths) == 1:
                raise
            given.left.append((path, str(error)))
    return given


def _in_folder(folder: Path) -> list[Path]:
    """The files of a form in its folder, else all files of data that are directly in it."""
    for source in FORMS:
        if source in ("google-merchant", "amazon-2014", "amazon-2018"):
            continue  # names that many files have; what is in them tells
        try:
            found = _listed(located(source, str(folder)))
        except MufinError:
            continue
        with contextlib.suppress(MufinError):
            found += _listed(located(source, str(folder), True))
        return found
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    data = [p for p in files if not p.name.lower().endswith(OTHERS)]
    if not data:
        there = ", ".join(p.name for p in sorted(folder.iterdir()))[:100]
        raise MufinError(f"{folder} has no files of data (it has {there}); name the files")
    return data


def _listed(location: str | list[str]) -> list[Path]:
    return [Path(p) for p in ([location] if isinstance(location, str) else location)]


def released_form(path: Path) -> str:
    """mm-amazontitles or lf-amazontitles for the folder or zip of such a set, else ''."""
    if path.is_dir():
        names = [p.name for p in path.rglob("*") if p.name in MARKS + PICTURES]
    elif path.suffix == ".zip" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    else:
        return ""
    if not set(names) & set(MARKS):
        return ""
    return RELEASED[0] if set(names) & set(PICTURES) else RELEASED[1]


def origin_of(look: Look) -> Origin | None:
    """The form of a file by its columns and its first line; None where no tool is known."""
    if look.kind == "xml":
        return Origin("google-merchant", "products", "a Google Merchant feed (XML)")
    name = look.part.name
    if name in NAMED:
        source, kind = NAMED[name]
        return Origin(source, kind, f"{name} of the data set {source}")
    if re.match(r"\d+::", look.first):
        kind = "interactions" if len(look.first.split("::")) == 4 else "products"
        return Origin(
            "movielens", kind, f"MovieLens' {'ratings' if kind != 'products' else 'movies'}"
        )
    if look.first.startswith("{'") and "'asin'" in look.first:
        return Origin("amazon-2014", "products", "Amazon's metadata of 2014")
    if {"set_id", "items"} <= set(look.names):
        return Origin("polyvore", "interactions", "Polyvore's outfits")
    sign = recognised(look.names)
    if sign is None or (sign.source == "amazon-2018" and "asin" not in look.names):
        return None
    return Origin(sign.source, sign.kind, sign.what)


def located_at(paths: list[Path]) -> str | list[str]:
    """The paths as a setting: one, a list, or a glob where many are all that it finds."""
    if len(paths) > 2 and len({p.parent for p in paths}) == 1:
        ending = os.path.commonprefix([p.name[::-1] for p in paths])[::-1]
        ending = ending[ending.find(".") :] if "." in ending else ""
        start = os.path.commonprefix([p.name for p in paths])
        pattern = str(paths[0].parent / f"{start}*{ending}")
        plain = not glob.has_magic(str(paths[0].parent / (start + ending)))
        if ending and plain and sorted(glob.glob(pattern)) == sorted(map(str, paths)):
            return pattern
    texts = [str(p) for p in paths]
    return texts[0] if len(texts) == 1 else texts


def released_sizes(folder: Path) -> dict[str, str]:
    """{file: `586,781 rows, 303,296 labels`} of the sparse matrices in a folder; {} for a zip."""
    out = {}
    for path in sorted(folder.rglob("*_X_Y.txt")) if folder.is_dir() else []:
        with open(path, "rb") as file:
            sizes = file.readline(100).split()
        if len(sizes) == 2 and all(size.isdigit() for size in sizes):
            out[path.name] = f"{int(sizes[0]):,} datapoints, {int(sizes[1]):,} labels"
    return out
