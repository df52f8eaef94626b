"""Canned products with pictures, and answers that follow from their words and colours."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from PIL import Image, ImageDraw

COLOURS = {"red": (200, 60, 50), "blue": (50, 90, 190), "green": (60, 150, 80)}
THINGS = {
    "Mug": ("Kitchen", "Mugs"),
    "Bowl": ("Kitchen", "Bowls"),
    "Chair": ("Home", "Chairs"),
    "Lamp": ("Home", "Lamps"),
}
CATEGORIES = [*dict.fromkeys(name for names in THINGS.values() for name in names)]
CATEGORIES += [f"Category {number}" for number in range(20)]
HOSTILE = "<img src=x onerror=\"document.title='broken in'\"><script>document.title=1</script>"
BETA = 0.4


def picture(colour: tuple[int, int, int], thing: str = "Mug", turned: bool = False) -> bytes:
    """A PNG of a simple shape in a colour."""
    image = Image.new("RGB", (240, 240), (250, 249, 246))
    draw = ImageDraw.Draw(image)
    lid = 60 if turned else 80
    if thing in ("Mug", "Lamp"):
        draw.rectangle((70, lid, 160, 190), fill=colour)
        draw.ellipse((140, 90, 200, 160), outline=colour, width=14)
    else:
        draw.pieslice((40, lid - 40, 200, 200), 0, 180, fill=colour)
        draw.rectangle((95, 190, 145, 205), fill=colour)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def colour_of(content: bytes) -> str:
    """The name of the colour that most of a picture's shape has."""
    pixels = Image.open(io.BytesIO(content)).convert("RGB").resize((24, 24)).get_flattened_data()
    dark = [p for p in pixels if sum(p) < 600] or [(128, 128, 128)]
    mean = [sum(channel) / len(dark) for channel in zip(*dark)]
    return min(COLOURS, key=lambda n: sum((a - b) ** 2 for a, b in zip(COLOURS[n], mean)))


@dataclass
class Item:
    """A product; one that is not in the catalog has no uid."""

    uid: str | None
    title: str
    category: list[str] = field(default_factory=list)
    attributes: dict = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)  # keys
    live: bool = False
    colour: str | None = None  # of the pictures
    texts: list[str] = field(default_factory=list)  # beside the title

    def json(self) -> dict:
        return {
            "uid": self.uid,
            "title": self.title,
            "texts": self.texts,
            "category": self.category,
            "attributes": self.attributes,
            "pictures": [f"/v1/pictures/{quote(key, safe='')}" for key in self.pictures],
            "answerable": True,
            "live": self.live,
        }


def catalog(images: dict[str, bytes]) -> dict[str, Item]:
    """The canned products by uid; their pictures are added to `images`."""
    items = {}
    for i, (thing, category) in enumerate(THINGS.items()):
        for j, (colour, rgb) in enumerate(COLOURS.items()):
            for size in ("small", "large"):
                uid = f"{thing.lower()}-{colour}-{size}"
                keys = [f"{uid}-{n}.png" for n in range(1 + (size == "large") * 2)]
                for n, key in enumerate(keys):
                    if key not in images:
                        images[key] = picture(rgb, thing, turned=bool(n))
                price = 5.0 + 7 * i + 2 * j + (size == "large") * 4
                values = {"price": price, "in_stock": j != 2, "colour": colour}
                title = f"{thing}, {colour}, {size}"
                texts = [f"A {size} {thing.lower()} of stoneware.", "Made in Bohemia."]
                items[uid] = Item(uid, title, list(category), values, keys, False, colour, texts)
    keys = [f"mug-red-large-{number % 3}.png" for number in range(9)]
    many = Item("many", "Lamp of nine pictures", ["Home", "Lamps"], {}, keys, colour="red")
    items["many"] = many
    items["blank"] = Item("blank", "", ["Kitchen", "Mugs"])
    items["hostile"] = Item("hostile", f"Mug {HOSTILE}", ["Kitchen", "<b>Mugs</b>"])
    items["long"] = Item("long", "Mug " + "Donaudampfschifffahrt" * 40, ["Kitchen"])
    hebrew = "ספל Mug קרמיקה כחול גדול (350 מ״ל)"
    items["right-to-left"] = Item("right-to-left", hebrew, ["Kitchen", "Mugs"])
    items["odd/id ?&#"] = Item("odd/id ?&#", "Mug with an odd id", ["Kitchen", "Mugs"])
    return items


def info(items: dict[str, Item]) -> dict:
    """The content of GET /v1/model."""
    return {
        "id": "0123456789ab",
        "products": len(items),
        "labels": len(items),
        "live": sum(item.live for item in items.values()),
        "modalities": ["text", "image", "lexical"],
        "members": 1,
        "mix": {"beta": BETA, "frequency_weight": 0.0, "network_weight": 1.0},
        "candidates": "all",
        "attention": True,
        "attributes": {
            "category": {"kind": "text", "values": CATEGORIES, "more": True},
            "price": {"kind": "number", "min": 5.0, "max": 34.0},
            "in_stock": {"kind": "flag"},
            "colour": {"kind": "text", "values": list(COLOURS), "more": False},
        },
    }


def answer(items: dict[str, Item], query: dict, uploads: list[bytes]) -> tuple[int, dict]:
    """The status and content of POST /v1/recommend."""
    k = query.get("k", 10)
    if not 1 <= k <= 1000:
        return 422, {"error": f"k is {k}; it must be less than or equal to 1000", "field": "k"}
    wanted = [*query.get("uids", []), *query.get("avoid", [])]
    if unknown := [uid for uid in wanted if uid not in items]:
        text = f"{unknown[0]} is not a product of the catalog; give another one"
        return 422, {"error": text, "field": "uids"}
    for number, content in enumerate(uploads):
        if not content.startswith(b"\x89PNG"):
            text = f"images.{number} is not used (not a picture); send a JPEG, PNG or WebP"
            return 422, {"error": text, "field": f"images.{number}"}
    members = [items[uid] for uid in query.get("uids", [])]
    if query.get("title") or query.get("texts") or uploads or query.get("category"):
        colour = colour_of(uploads[0]) if uploads else None
        keys = ["upload"] * len(uploads)
        category = query.get("category", [])
        title, texts = query.get("title", ""), query.get("texts", [])
        members.append(Item(None, title, category, {}, keys, False, colour, texts))
    if not members:
        return 422, {"error": "no product is asked about; give uids", "field": "uids"}
    avoid = [items[uid] for uid in query.get("avoid", [])]
    found = [
        _scored(item, members, avoid, query)
        for uid, item in items.items()
        if uid not in wanted and item.title and _meets(item, query.get("where") or {})
    ]
    found.sort(key=lambda answer: -answer["score"])
    if query.get("fold"):
        first: dict[str, dict] = {}
        for answer in found:
            first.setdefault(answer["title"].split(",")[0], answer)
        found = list(first.values())
    return 200, {"answers": found[:k], "model": "0123456789ab", "milliseconds": 3.2}


def _words(item: Item) -> set[str]:
    return set(item.title.lower().replace(",", " ").split())


def _meets(item: Item, where: dict) -> bool:
    for name, condition in where.items():
        value = item.category if name == "category" else item.attributes.get(name)
        if isinstance(condition, dict):
            low, high = condition.get("gte", -1e9), condition.get("lte", 1e9)
            if value is None or not low <= value <= high:
                return False
        else:
            wanted = condition if isinstance(condition, list) else [condition]
            if not set(wanted) & set(value if isinstance(value, list) else [value]):
                return False
    return True


def _like(one: Item, other: Item, modalities: list[str]) -> float:
    a, b = _words(one), _words(other)
    text = len(a & b) / max(1, len(a | b)) if {"text", "lexical"} & set(modalities) else 0.0
    image = float(bool(one.colour) and one.colour == other.colour) if "image" in modalities else 0.0
    return 0.6 * text + 0.4 * image


def _scored(item: Item, members: list[Item], avoid: list[Item], query: dict) -> dict:
    modalities = query.get("modalities") or ["text", "image", "lexical"]
    beta = (query.get("mix") or {}).get("beta", BETA)
    readable = [m for m in members if m.title or m.texts or m.pictures]
    if not readable:
        parts = {"popularity": float(item.category[:2] == members[0].category[:2])}
    else:
        same = sum(item.category[:1] == m.category[:1] for m in readable) / len(readable)
        like = sum(_like(item, m, modalities) for m in readable) / len(readable)
        parts = {"classifier": beta * (same - 0.2), "similarity": (1 - beta) * like}
        if avoid:
            parts["avoid"] = -0.5 * sum(_like(item, a, modalities) for a in avoid) / len(avoid)
    why = [reason for m in readable for reason in _reasons(m, item)] if query["reasons"] else []
    return item.json() | {
        "score": sum(parts.values()),
        "parts": parts,
        "fallback": not readable,
        "why": sorted(why, key=lambda reason: -reason["weight"])[:3],
    }


def _reasons(asked: Item, item: Item) -> Iterator[dict]:
    """The second picture goes to the title with 0.61, and so on: enough to draw."""
    if asked.uid is None and asked.texts and item.texts:
        yield {
            "query": {"uid": None, "kind": "text", "number": 0, "text": asked.texts[0]},
            "answer": {"uid": item.uid, "kind": "text", "number": 1, "text": item.texts[1]},
            "weight": 0.73,
            "by": "attention",
        }
    last = len(asked.pictures) - 1
    pairs = [("title", 0, "title", 0, 0.28), ("words", 0, "title", 0, 0.11)]
    if asked.pictures:
        pairs.append(("picture", min(last, 1), "title", 0, 0.61))
    if asked.pictures and item.pictures:
        pairs.append(("picture", 0, "picture", len(item.pictures) - 1, 0.47))
    for kind, number, other, place, weight in pairs:
        yield {
            "query": {"uid": asked.uid, "kind": kind, "number": number},
            "answer": {"uid": item.uid, "kind": other, "number": place},
            "weight": weight,
            "by": "attention",
        }
