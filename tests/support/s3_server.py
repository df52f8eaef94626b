"""A small object store in memory that answers the requests of S3 which pyarrow sends.

https://docs.aws.amazon.com/AmazonS3/latest/API: buckets in the path, objects, ranges, listings and
uploads in parts. Signatures are not checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI"
LEAST = 5 * 2**20  # bytes of a part of an upload, but of the last
BREAKS = -1  # in place of a status: the connection ends in the middle of the request
TIME = "2026-01-01T00:00:00.000Z"
REASONS = {
    403: ("AccessDenied", "Access Denied"),
    404: ("NoSuchKey", "The specified key does not exist."),
    500: ("InternalError", "We encountered an internal error. Please try again."),
}


@dataclass
class Upload:
    """An upload in parts, of which nothing can be read before it is completed."""

    name: str
    parts: dict[int, bytes] = field(default_factory=dict)


class S3Server(ThreadingHTTPServer):
    """Objects by `bucket/key`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, page: int = 1000):
        super().__init__(("127.0.0.1", 0), Handler)
        self.page = page  # objects per page of a listing
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, Upload] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.lock = threading.Lock()
        # What a request (method, `bucket/key`) fails with: a status, BREAKS, or None
        self.trouble: Callable[[str, str], int | None] = lambda method, name: None

    def uri(self, folder: str) -> str:
        """The URI of `bucket/folder` for pyarrow, with keys."""
        at = "{}:{}".format(*self.server_address)
        place = f"scheme=http&endpoint_override={at}&region=us-east-1"
        return f"s3://{KEY}:{SECRET}@{folder}?{place}"

    def count(self, method: str, word: str = "") -> int:
        """The requests with this method, and with `word` among their query parameters."""
        return sum(m == method and (not word or word in query) for m, _, query in self.asked)


class Handler(BaseHTTPRequestHandler):
    """One request, by its method and its query."""

    server: S3Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args) -> None:
        pass

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        self.name = unquote(url.path).lstrip("/")
        self.query = dict(parse_qsl(url.query, keep_blank_values=True))
        with self.server.lock:
            self.server.asked.append((self.command, self.name, self.query))
            trouble = self.server.trouble(self.command, self.name)
        if trouble == BREAKS:
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
            self.close_connection = True
            return
        body = self._body()
        self._refuse(trouble) if trouble else self._answer(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

    def _answer(self, body: bytes) -> None:
        query, method = self.query, self.command
        if method == "POST" and "delete" in query:
            self._delete_all(body)
        elif method == "POST" and "uploads" in query:
            self._begin()
        elif method == "POST":
            self._complete(body)
        elif method == "PUT":
            self._put(body)
        elif method == "DELETE":
            gone = self.server.uploads if "uploadId" in query else self.server.objects
            gone.pop(query.get("uploadId", self.name), None)
            self._send(204)
        elif "/" not in self.name.rstrip("/"):
            self._list() if method == "GET" else self._send(200)
        else:
            self._get()

    # Objects

    def _get(self) -> None:
        if (content := self.server.objects.get(self.name)) is None:
            return self._refuse(404)
        headers = {"ETag": etag(content), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if (asked := self.headers.get("Range")) is None:
            return self._send(200, content, headers)
        first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", asked).groups()
        start, stop = int(first), min(int(last or len(content)) + 1, len(content))
        if start >= len(content):
            return self._send(416)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return self._send(206, content[start:stop], headers)

    def _put(self, content: bytes) -> None:
        if "uploadId" not in self.query:
            self.server.objects[self.name] = content
        elif (upload := self.server.uploads.get(self.query["uploadId"])) is None:
            return self._refuse(404)
        else:
            upload.parts[int(self.query["partNumber"])] = content
        return self._send(200, headers={"ETag": etag(content)})

    def _delete_all(self, body: bytes) -> None:
        bucket = self.name.rstrip("/")
        for key in texts(body, "Key"):
            self.server.objects.pop(f"{bucket}/{key}", None)
        self._xml("DeleteResult", "")

    # Uploads in parts

    def _begin(self) -> None:
        number = uuid.uuid4().hex
        self.server.uploads[number] = Upload(self.name)
        self._xml("InitiateMultipartUploadResult", self._place() + element("UploadId", number))

    def _complete(self, body: bytes) -> None:
        if (upload := self.server.uploads.get(self.query["uploadId"])) is None:
            return self._refuse(404)
        parts = [upload.parts[int(number)] for number in texts(body, "PartNumber")]
        assert all(len(part) >= LEAST for part in parts[:-1])
        self.server.objects[self.name] = content = b"".join(parts)
        inner = self._place() + element("ETag", etag(content))
        return self._xml("CompleteMultipartUploadResult", inner)  # as often as it is asked

    def _place(self) -> str:
        bucket, _, key = self.name.partition("/")
        return element("Bucket", bucket) + element("Key", key)

    # Listings

    def _list(self) -> None:
        bucket = self.name.rstrip("/")
        names = list(self.server.objects)  # others may come meanwhile
        keys = [name.partition("/")[2] for name in names if name.startswith(f"{bucket}/")]
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        found = sorted({cut(key, prefix, delimiter) for key in keys if key.startswith(prefix)})
        after = self.query.get("continuation-token") or self.query.get("start-after", "")
        found = [name for name in found if name > after]
        page = found[: min(int(self.query.get("max-keys", 1000)), self.server.page)]
        more = len(page) < len(found)
        parts = [element("Name", bucket), element("Prefix", prefix)]
        parts += [element("KeyCount", len(page)), element("IsTruncated", str(more).lower())]
        parts += [element("NextContinuationToken", page[-1])] if more else []
        self._xml("ListBucketResult", "".join([*parts, *(self._listed(bucket, n) for n in page)]))

    def _listed(self, bucket: str, name: str) -> str:
        if (content := self.server.objects.get(f"{bucket}/{name}")) is None:
            return f"<CommonPrefixes>{element('Prefix', name)}</CommonPrefixes>"
        said = {"Key": name, "LastModified": TIME, "ETag": etag(content), "Size": len(content)}
        return f"<Contents>{''.join(element(*pair) for pair in said.items())}</Contents>"

    # Bytes in and out

    def _body(self) -> bytes:
        """The content of the request, without the frames of chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = unchunked(self.rfile)
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            content = unchunked(io.BytesIO(content))
        return content

    def _refuse(self, status: int) -> None:
        code, message = REASONS[status]
        text = element("Code", code) + element("Message", message)
        self._send(status, f"<Error>{text}</Error>".encode())

    def _xml(self, name: str, inner: str) -> None:
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        self._send(200, f'<{name} xmlns="{space}">{inner}</{name}>'.encode())

    def _send(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            if status != 204 or name != "Content-Length":
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def unchunked(source: BinaryIO) -> bytes:
    """Content in chunks, each after a line with its size in hex and, of S3, its signature.

    Lines after the last chunk, such as a checksum, are read and not returned.
    """
    content = bytearray()
    while size := int(source.readline().split(b";")[0], 16):
        content += source.read(size)
        source.readline()
    while source.readline().strip():
        pass
    return bytes(content)


def cut(key: str, prefix: str, delimiter: str) -> str:
    """The key, or what is before and with the first delimiter after the prefix."""
    rest = key[len(prefix) :]
    if not delimiter or delimiter not in rest:
        return key
    return prefix + rest.partition(delimiter)[0] + delimiter


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def element(name: str, content: object) -> str:
    return f"<{name}>{escape(str(content))}</{name}>"


def texts(body: bytes, name: str) -> list[str]:
    """The texts of all elements of a name, in whatever namespace."""
    found = ElementTree.fromstring(body).iter()
    return [e.text or "" for e in found if e.tag.rpartition("}")[2] == name]


@contextlib.contextmanager
def s3_serving(page: int = 1000) -> Iterator[S3Server]:
    """A server on this machine, until the end of the block."""
    with S3Server(page) as server:
        at = {"poll_interval": 0.02}
        threading.Thread(target=server.serve_forever, kwargs=at, daemon=True).start()
        yield server
        server.shutdown()
