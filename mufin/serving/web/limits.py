"""The bounds of a request and of the server; what is beyond is refused in a sentence."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mufin.errors import MufinError, shown

# Fixed, as the OpenAPI description names them
K = 1000  # answers per question
UIDS = 100  # products asked about, or avoided, per question
LISTED = 10_000  # candidates or excluded products per question
UID = 500  # characters of an id
TITLE = 2000  # characters of a title
TEXTS = 32  # beside the title, per question or product
LONG_TEXT = 20_000  # characters of one of them
LEVELS = 20  # of a category
LEVEL = 200  # characters of one
IMAGES = 16  # per question or product
URL = 2000  # characters
QUERIES = 64  # questions per batch
CHANGES = 100  # products per batch of changes, upserted and deleted together
VALUES_OF_BODY = 2_000_000  # brackets and commas of JSON: a list takes 20 times its characters
COLUMNS = 50  # conditions of `where`, attributes of a product
VALUES = 1000  # of one condition
TEXT = 500  # characters of a value or of a search text
NAME = 200  # characters of a column's name
FOUND = 100  # products per search
FOLDER = 1000  # characters of a path
LARGEST = 2**53  # of a whole number: beyond, a float would not hold it
PIXELS = 64_000_000  # of a picture, by its header


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much the server takes on at once, and for how long."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    key: str | None = None  # API key; without it only a loopback host may be bound
    body_bytes: int = 32 * 2**20  # of a request
    image_bytes: int = 8 * 2**20  # of one encoded picture
    held_bytes: int = 512 * 2**20  # of the bodies of all requests under way
    requests: int = 512  # under way at once
    seconds: float = 30.0  # per request, from its headers to the end of the answer
    load_seconds: float = 1800.0  # per request that loads a model
    max_batch: int = 32  # questions per call of the recommender
    max_wait_ms: float = 2.0  # that a batch waits for questions that are being read
    max_queue: int = 512  # questions and changes that wait
    fetch_threads: int = 16  # image URLs fetched at once
    fetch_seconds: float = 10.0  # per image URL, all redirects together
    fetch_step: float = 5.0  # seconds to find the host, to connect, and between two parts
    fetch_redirects: int = 3
    drain_seconds: float = 0.0  # after SIGTERM: /readyz says 503, and requests are still taken

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            free = field.name in ("port", "max_wait_ms", "drain_seconds", "fetch_redirects")
            if isinstance(value, (int, float)) and not (value > 0 or free and value == 0):
                least = "at least 0" if free else "above 0"
                raise MufinError(f"{field.name} is {shown(value)}; it must be {least}")
        if self.port > 65535:
            raise MufinError(f"port is {self.port}; it must be at most 65535")
        if self.max_queue < QUERIES:
            raise MufinError(
                f"max_queue is {self.max_queue}; it must be at least {QUERIES}, so that a batch "
                "of questions fits"
            )
