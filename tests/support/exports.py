"""Files as shop systems and data sets write them: the same invented shop in every form.

Column names and their order, encodings, line ends and quirks are those of the tools. Pictures are
`<host>/<name>.jpg`, so that a test can serve them.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq

HOST = "https://cdn.shop.example/files"
COLOURS = ("Red", "Blue", "Green", "Sand", "Café au lait")
THINGS = ("Mug", "Teapot", "Tray", "Bowl", "Plate", "Jug", "Spoon", "Kettle")
DAY = 86_400
START = 1_704_103_200  # 2024-01-01 10:00:00 UTC


@dataclass(frozen=True, slots=True)
class Item:
    """A product of the shop; those of one set are bought together."""

    number: int
    title: str
    colours: tuple[str, ...]  # one: the product has no variants
    pictures: int
    set: int

    @property
    def handle(self) -> str:
        """Its name in URLs."""
        return f"{self.title.lower().replace(' ', '-')}"

    def sku(self, colour: int = 0) -> str:
        """The stock number of a variant."""
        return f"{self.number:04d}-{colour}"

    def picture(self, host: str, number: int) -> str:
        """The URL of a picture, from 1."""
        return f"{host}/{self.number}-{number}.jpg"


def shop(products: int = 40, seed: int = 0) -> list[Item]:
    """The products, in sets of eight."""
    draw = random.Random(seed)
    return [
        Item(
            number,
            f"{THINGS[number % 8]} series {number // 8}",
            tuple(draw.sample(COLOURS, draw.choice((1, 1, 2)))),
            draw.choice((1, 1, 2, 3)),
            number // 8,
        )
        for number in range(products)
    ]


def orders(items: list[Item], count: int = 200, seed: int = 0) -> list[list[Item]]:
    """Baskets of two to four products, nine of ten of one set."""
    draw = random.Random(seed + 1)
    out = []
    for _ in range(count):
        of = draw.choice(items).set
        pool = [item for item in items if item.set == of] if draw.random() < 0.9 else items
        out.append(draw.sample(pool, min(draw.choice((2, 3, 4)), len(pool))))
    return out


def _write_csv(path: Path, header: list[str], rows: list[dict], **how) -> Path:
    encoding, delimiter = how.pop("encoding", "utf-8"), how.pop("delimiter", ",")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, header, delimiter=delimiter, restval="", **how)
        writer.writeheader()
        writer.writerows(rows)
    return path


# Shopify

FIELD = "product.metafields.shopify--discovery--product_recommendation."
SHOPIFY_PRODUCTS = [
    *"Handle|Title|Body (HTML)|Vendor|Product Category|Type|Tags|Published".split("|"),
    *"Option1 Name|Option1 Value|Option1 Linked To|Option2 Name|Option2 Value".split("|"),
    *"Option2 Linked To|Option3 Name|Option3 Value|Option3 Linked To|Variant SKU".split("|"),
    *"Variant Grams|Variant Inventory Tracker|Variant Inventory Qty".split("|"),
    *"Variant Inventory Policy|Variant Fulfillment Service|Variant Price".split("|"),
    *"Variant Compare At Price|Variant Requires Shipping|Variant Taxable".split("|"),
    *"Variant Barcode|Image Src|Image Position|Image Alt Text|Gift Card|SEO Title".split("|"),
    *"SEO Description|Google Shopping / Google Product Category".split("|"),
    f"Complementary products ({FIELD}complementary_products)",
    f"Related products ({FIELD}related_products)",
    f"Related products settings ({FIELD}related_products_display)",
    *"Variant Image|Variant Weight Unit|Variant Tax Code|Cost per item|Status".split("|"),
]
SHOPIFY_ORDERS = [
    *"Name|Email|Financial Status|Paid at|Fulfillment Status|Fulfilled at".split("|"),
    *"Accepts Marketing|Currency|Subtotal|Shipping|Taxes|Total|Discount Code".split("|"),
    *"Discount Amount|Shipping Method|Created at|Lineitem quantity|Lineitem name".split("|"),
    *"Lineitem price|Lineitem compare at price|Lineitem sku".split("|"),
    *"Lineitem requires shipping|Lineitem taxable|Lineitem fulfillment status".split("|"),
    *"Billing Name|Billing City|Billing Zip|Notes|Cancelled at|Payment Method".split("|"),
    *"Refunded Amount|Vendor|Id|Tags|Risk Level|Source|Lineitem discount".split("|"),
]


def shopify_rows(items: list[Item], host: str = HOST, status: str = "active") -> list[dict]:
    """The rows of each product: one per variant or picture, whichever are more."""
    out = []
    for item in items:
        for at in range(max(len(item.colours), item.pictures)):
            row = {"Handle": item.handle}
            if at == 0:
                row |= {
                    "Title": item.title,
                    "Body (HTML)": f'<p>Stoneware, "hand-made",\nin {item.colours[0]}</p>',
                    "Vendor": "Kiln & Co",
                    "Product Category": "Home & Garden > Kitchen & Dining > Tableware",
                    "Type": item.title.split()[0],
                    "Published": "true",
                    "Option1 Name": "Title" if len(item.colours) == 1 else "Color",
                    "Gift Card": "false",
                    "Status": status,
                }
            if at < len(item.colours):
                single = len(item.colours) == 1
                row |= {
                    "Option1 Value": "Default Title" if single else item.colours[at],
                    "Variant SKU": f"'{item.sku(at)}",
                    "Variant Price": "12.50",
                }
            if at < item.pictures:  # the admin exports them in the order of the variants
                row |= {
                    "Image Src": item.picture(host, item.pictures - at),
                    "Image Position": str(item.pictures - at),
                }
            out.append(row)
    return out


def shopify(folder: Path, items: list[Item], host: str = HOST) -> Path:
    """Products, Export: products_export_1.csv."""
    return _write_csv(
        folder / "products_export_1.csv",
        SHOPIFY_PRODUCTS,
        shopify_rows(items, host),
        lineterminator="\n",
    )


def shopify_order_rows(baskets: list[list[Item]], start: int = 1001) -> list[dict]:
    """One row per item; the order's own cells are on its first row. The newest order is first."""
    out = []
    for number, basket in reversed(list(enumerate(baskets, start))):
        for at, item in enumerate(basket):
            colour = number % len(item.colours)
            name = (
                item.title if len(item.colours) == 1 else f"{item.title} - {item.colours[colour]}"
            )
            row = {
                "Name": f"#{number}",
                "Email": f"customer{number % 97}@mail.example",
                "Lineitem quantity": "1",
                "Lineitem name": name,
                "Lineitem price": "12.50",
                "Lineitem sku": "" if item.number % 5 == 0 else item.sku(colour),
                "Vendor": "Kiln & Co",
            }
            if at == 0:
                row |= {
                    "Financial Status": "paid",
                    "Created at": _offset(START + (number - start) * DAY),
                    "Total": "25.00",
                    "Currency": "CAD",
                    "Billing Zip": "'75008",
                    "Source": "web",
                }
            out.append(row)
    return out


def _offset(seconds: int) -> str:
    zone = datetime.timezone(datetime.timedelta(hours=-4))
    return datetime.datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%d %H:%M:%S %z")


def shopify_orders(folder: Path, baskets: list[list[Item]]) -> Path:
    """Orders, Export: orders_export_1.csv."""
    return _write_csv(
        folder / "orders_export_1.csv",
        SHOPIFY_ORDERS,
        shopify_order_rows(baskets),
        lineterminator="\n",
    )


# WooCommerce

WOOCOMMERCE = [
    *"ID|Type|SKU|GTIN, UPC, EAN, or ISBN|Name|Published|Is featured?".split("|"),
    *"Visibility in catalog|Short description|Description|Date sale price starts".split("|"),
    *"Date sale price ends|Tax status|Tax class|In stock?|Stock|Low stock amount".split("|"),
    *"Backorders allowed?|Sold individually?|Weight (kg)|Length (cm)|Width (cm)".split("|"),
    *"Height (cm)|Allow customer reviews?|Purchase note|Sale price|Regular price".split("|"),
    *"Categories|Tags|Shipping class|Images|Download limit|Download expiry days".split("|"),
    *"Parent|Grouped products|Upsells|Cross-sells|External URL|Button text".split("|"),
    *"Position|Attribute 1 name|Attribute 1 value(s)|Attribute 1 visible".split("|"),
    "Attribute 1 global",
]


def woocommerce_rows(items: list[Item], host: str = HOST) -> list[dict]:
    """Products by ID, then their variations; upsells by SKU, cross-sells by `id:`."""
    out, variations = [], []
    for item in items:
        same = [other for other in items if other.set == item.set and other is not item]
        variable = len(item.colours) > 1
        out.append(
            {
                "ID": str(100 + item.number),
                "Type": "variable" if variable else "simple",
                "SKU": item.sku() if item.number % 3 else "",
                "Name": item.title,
                "Published": "1",
                "Visibility in catalog": "visible",
                "Description": "Stoneware, fired twice\\nwashable",
                "Categories": "Tableware, Tableware > Cups\\, mugs, Sale",
                "Images": ", ".join(
                    item.picture(host, number) for number in range(1, item.pictures + 1)
                ),
                "Upsells": ", ".join(other.sku() for other in same[:2] if other.number % 3),
                "Cross-sells": ", ".join(f"id:{100 + other.number}" for other in same[2:4]),
                "Attribute 1 name": "Colour" if variable else "",
                "Attribute 1 value(s)": ", ".join(item.colours) if variable else "",
            }
        )
        for at, colour in enumerate(item.colours if variable else ()):
            variations.append(
                {
                    "ID": str(10_000 + item.number * 10 + at),
                    "Type": "variation",
                    "SKU": f"{item.sku(at)}-v",
                    "Name": f"{item.title} - {colour}",
                    "Published": "1",
                    "Images": item.picture(host, 9) if at else "",
                    "Parent": item.sku() if item.number % 3 else f"id:{100 + item.number}",
                    "Attribute 1 name": "Colour",
                    "Attribute 1 value(s)": colour,
                }
            )
    return out + variations


def woocommerce(folder: Path, items: list[Item], host: str = HOST) -> Path:
    """Products, Export: with a byte order mark, as WooCommerce writes it."""
    return _write_csv(
        folder / "wc-product-export-28-11-2026-1764324000000.csv",
        WOOCOMMERCE,
        woocommerce_rows(items, host),
        encoding="utf-8-sig",
        lineterminator="\n",
    )


# Google Merchant


def merchant_tsv(folder: Path, items: list[Item], host: str = HOST) -> Path:
    """A feed as text, one row per variant."""
    header = "id title description link image_link additional_image_link availability price"
    rows = [
        {
            "id": item.sku(at),
            "title": f"{item.title}, {colour}",
            "link": f"{host}/{item.handle}?variant={at}",
            "image_link": item.picture(host, 1),
            "additional_image_link": ",".join(
                item.picture(host, number) for number in range(2, item.pictures + 1)
            ),
            "availability": "in_stock",
            "price": "12.50 EUR",
            "product_type": "Home > Kitchen > Tableware",
            "google_product_category": "672",
            "item_group_id": item.handle,
            "gtin": f"40{item.number:09d}{at}1",
        }
        for item in items
        for at, colour in enumerate(item.colours)
    ]
    more = "product_type google_product_category item_group_id gtin"
    return _write_csv(folder / "feed.tsv", f"{header} {more}".split(), rows, delimiter="\t")


def merchant_xml(folder: Path, items: list[Item], host: str = HOST, atom: bool = False) -> Path:
    """A feed as RSS 2.0 or Atom 1.0."""
    entries = []
    for item in items:
        for at, colour in enumerate(item.colours):
            more = "".join(
                f"<g:additional_image_link>{item.picture(host, number)}</g:additional_image_link>"
                for number in range(2, item.pictures + 1)
            )
            entries.append(
                f"<g:id>{item.sku(at)}</g:id>"
                f"<title><![CDATA[{item.title}, {colour}]]></title>"
                f"<link>{escape(f'{host}/{item.handle}?a=1&variant={at}')}</link>"
                f"<g:image_link>{item.picture(host, 1)}</g:image_link>{more}"
                "<g:availability>in_stock</g:availability><g:price>12.50 EUR</g:price>"
                "<g:shipping><g:country>DE</g:country><g:price>4.90 EUR</g:price></g:shipping>"
                "<g:product_type>Home &gt; Kitchen &gt; Tableware</g:product_type>"
                "<g:google_product_category>672</g:google_product_category>"
                f"<g:item_group_id>{item.handle}</g:item_group_id>"
                f"<g:gtin>40{item.number:09d}{at}1</g:gtin>"
            )
    google = 'xmlns:g="http://base.google.com/ns/1.0"'
    if atom:
        inside = "\n".join(f"<entry>{entry}</entry>" for entry in entries)
        text = (
            f'<feed xmlns="http://www.w3.org/2005/Atom" {google}><title>Kiln</title>{inside}</feed>'
        )
    else:
        inside = "\n".join(f"<item>{entry}</item>" for entry in entries)
        text = f'<rss {google} version="2.0"><channel><title>Kiln</title>{inside}</channel></rss>'
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("feed.atom.xml" if atom else "feed.xml")
    path.write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n', encoding="utf-8")
    return path


# Amazon 2023


def asin(item: Item) -> str:
    """An id as Amazon's."""
    return f"B0{item.number:08d}"


def amazon_items(items: list[Item], host: str = HOST) -> list[dict]:
    """The objects of the metadata, with all fields."""
    return [
        {
            "main_category": "Amazon Home",
            "title": item.title,
            "average_rating": 4.2,
            "rating_number": 15,
            "features": ["Dishwasher safe", "Fired twice"],
            "description": [],
            "price": 12.5 if item.number % 2 else None,
            "images": [
                {
                    "thumb": f"{host}/{item.number}-{number}._SS40_.jpg",
                    "large": f"{host}/{item.number}-{number}-large.jpg",
                    "variant": "MAIN" if number == 1 else f"PT{number:02d}",
                    "hi_res": item.picture(host, number) if number % 2 else None,
                }
                for number in range(1, item.pictures + 1)
            ],
            "videos": [{"title": "Fired twice", "url": f"{host}/vdp/1", "user_id": ""}],
            "store": "Kiln",
            "categories": ["Home & Kitchen", "Kitchen & Dining"] if item.number % 4 else [],
            "details": {"Brand": "Kiln", "Date First Available": "May 7, 2021"},
            "parent_asin": asin(item),
            "bought_together": None,
        }
        for item in items
    ]


def _write_lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def amazon_2023(folder: Path, items: list[Item], host: str = HOST) -> Path:
    """The raw metadata: meta_<category>.jsonl.gz."""
    return _write_lines(folder / "meta_Home_and_Kitchen.jsonl.gz", amazon_items(items, host))


def amazon_2023_parquet(folder: Path, items: list[Item], host: str = HOST) -> Path:
    """The metadata as on Hugging Face: pictures as an object of lists, details as text."""
    rows = []
    for row in amazon_items(items, host):
        names = ("hi_res", "large", "thumb", "variant")
        images = {name: [image[name] for image in row["images"]] for name in names}
        videos = {name: [v[name] for v in row["videos"]] for name in ("title", "url", "user_id")}
        rows.append(
            row
            | {"images": images, "videos": videos, "details": json.dumps(row["details"])}
            | {"price": str(row["price"]), "subtitle": None, "author": None}
        )
    schema = pa.Table.from_pylist(rows).schema
    at = schema.get_field_index("bought_together")
    schema = schema.set(at, pa.field("bought_together", pa.null()))
    path = folder / "raw_meta_Home_and_Kitchen" / "full-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def amazon_reviews(folder: Path, baskets: list[list[Item]]) -> Path:
    """The raw reviews: <category>.jsonl.gz, with times in milliseconds."""
    rows = [
        {
            "rating": float(1 + (number + at) % 5),
            "title": "Fine",
            "text": "As described.",
            "images": [],
            "asin": f"B1{item.number:08d}",  # of the variant
            "parent_asin": asin(item),
            "user_id": f"AE{number:022d}",
            "timestamp": (START + number * DAY + at) * 1000 + 123,
            "helpful_vote": 0,
            "verified_purchase": True,
        }
        for number, basket in enumerate(baskets)
        for at, item in enumerate(basket)
    ]
    return _write_lines(folder / "Home_and_Kitchen.jsonl.gz", rows)


# H&M

HM_ARTICLES = (
    "article_id,product_code,prod_name,product_type_no,product_type_name,product_group_name,"
    "graphical_appearance_no,graphical_appearance_name,colour_group_code,colour_group_name,"
    "perceived_colour_value_id,perceived_colour_value_name,perceived_colour_master_id,"
    "perceived_colour_master_name,department_no,department_name,index_code,index_name,"
    "index_group_no,index_group_name,section_no,section_name,garment_group_no,"
    "garment_group_name,detail_desc"
).split(",")


def article(item: Item) -> str:
    """An id of ten digits."""
    return f"01{item.number:05d}001"[:10].rjust(10, "0")


def hm(folder: Path, items: list[Item], picture: bytes = b"") -> Path:
    """articles.csv, and with `picture` the folder images/ with one for four of five articles."""
    rows = []
    for item in items:
        rows.append(
            {
                "article_id": article(item),
                "product_code": article(item)[:7],
                "prod_name": item.title,
                "product_type_no": "253",
                "product_type_name": item.title.split()[0],
                "product_group_name": "Interior textile",
                "colour_group_code": "09",
                "colour_group_name": item.colours[0],
                "index_name": "Home",
                "index_group_name": "Ladieswear",
                "detail_desc": "Stoneware, fired twice.",
            }
        )
        if picture and item.number % 5:
            path = folder / "images" / article(item)[:3] / f"{article(item)}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture + bytes([item.number % 256]))
    return _write_csv(folder / "articles.csv", HM_ARTICLES, rows, lineterminator="\n")


def hm_transactions(folder: Path, baskets: list[list[Item]]) -> Path:
    """transactions_train.csv."""
    rows = [
        {
            "t_dat": datetime.date.fromordinal(737_000 + number).isoformat(),
            "customer_id": f"{number:064x}",
            "article_id": article(item),
            "price": "0.0508305084745762",
            "sales_channel_id": "2",
        }
        for number, basket in enumerate(baskets)
        for item in basket
    ]
    header = ["t_dat", "customer_id", "article_id", "price", "sales_channel_id"]
    return _write_csv(folder / "transactions_train.csv", header, rows, lineterminator="\n")


# Polyvore


def polyvore(folder: Path, items: list[Item], picture: bytes = b"") -> Path:
    """polyvore_item_metadata.json on one line, and with `picture` the folder images/."""
    metadata = {}
    for item in items:
        uid = str(100_000_000 + item.number)
        metadata[uid] = {
            "url_name": item.title.lower(),
            "description": "",
            "catgeory": "",
            "categories": ["Home", item.title.split()[0]],
            "title": item.title if item.number % 3 else "",
            "related": ["Stoneware mugs", "Tea sets"],
            "category_id": "17",
            "semantic_category": "accessories",
        }
        if picture:
            (folder / "images").mkdir(parents=True, exist_ok=True)
            (folder / "images" / f"{uid}.jpg").write_bytes(picture + bytes([item.number % 256]))
    path = folder / "polyvore_item_metadata.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metadata))
    (folder / "categories.csv").write_text("17,mugs,accessories\n")
    (folder / "polyvore_outfit_titles.json").write_text("{}")
    return path


def polyvore_outfits(folder: Path, baskets: list[list[Item]]) -> list[Path]:
    """{nondisjoint, disjoint}/{train,valid,test}.json; those of disjoint are a part."""
    paths = []
    for kind, some in (("nondisjoint", baskets), ("disjoint", baskets[: len(baskets) // 2])):
        outfits = [
            {
                "items": [
                    {"item_id": str(100_000_000 + item.number), "index": at + 1}
                    for at, item in enumerate(basket)
                ],
                "set_id": str(200_000_000 + number),
            }
            for number, basket in enumerate(some)
        ]
        cut = [0, len(some) * 8 // 10, len(some) * 9 // 10, len(some)]
        for name, start, end in zip(("train", "valid", "test"), cut, cut[1:]):
            path = folder / kind / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(outfits[start:end]))
            paths.append(path)
        question = {"question": ["200000000_1"], "blank_position": 1, "answers": ["200000000_2"]}
        (folder / kind / "fill_in_blank_test.json").write_text(json.dumps([question]))
    return paths[:3]


# MovieLens


def movielens(folder: Path, items: list[Item], release: str = "1m") -> Path:
    """movies.dat (1m, 10m), movies.csv (latest) or u.item (100k)."""
    folder.mkdir(parents=True, exist_ok=True)
    titles = [f"{item.title}: {item.colours[0]}, The (1995)" for item in items]
    if release == "latest":
        rows = [
            {"movieId": item.number + 1, "title": title, "genres": "Comedy|Drama"}
            for item, title in zip(items, titles)
        ]
        rows[0]["genres"] = "(no genres listed)"
        return _write_csv(folder / "movies.csv", ["movieId", "title", "genres"], rows)
    if release == "100k":
        flags = "|".join("1" if at in (5, 8) else "0" for at in range(19))
        url = "http://us.imdb.com/M/title-exact?x"
        lines = [
            f"{i.number + 1}|{title}|01-Jan-1995||{url}|{flags}" for i, title in zip(items, titles)
        ]
        path = folder / "u.item"
    else:
        lines = [f"{i.number + 1}::{title}::Comedy|Drama" for i, title in zip(items, titles)]
        path = folder / "movies.dat"
    encoding = "utf-8" if release == "10m" else "latin-1"
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


def movielens_ratings(folder: Path, baskets: list[list[Item]], release: str = "1m") -> Path:
    """ratings.dat, ratings.csv or u.data; of each user the last rating is 2, the others 4 or 5."""
    rows = []
    for user, basket in enumerate(baskets, 1):
        for at, item in enumerate(basket):
            stars = 2 if at == len(basket) - 1 else 4 + at % 2
            rows.append((user, item.number + 1, stars, START + user * DAY + at))
    if release == "latest":
        header = ["userId", "movieId", "rating", "timestamp"]
        return _write_csv(folder / "ratings.csv", header, [dict(zip(header, row)) for row in rows])
    separator, name = ("\t", "u.data") if release == "100k" else ("::", "ratings.dat")
    path = folder / name
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))
    return path
