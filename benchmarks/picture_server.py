"""A server of small pictures that costs little: one process, one thread, a parser of its own.

python -m benchmarks.picture_server COUNT

It prints its port, answers each GET of a path that ends in `<number>.jpg`, and keeps the number of
requests so far in the 8 bytes of the file COUNT, where another process can read it at any time.
"""

from __future__ import annotations

import mmap
import selectors
import socket
import sys
from pathlib import Path

END = b"\r\n\r\n"  # of the head of a request


def picture(i: int) -> bytes:
    """The least that download takes for a JPEG, its content that of the number `i`."""
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + i.to_bytes(8, "big") * 16 + b"\xff\xd9"


def asked(count: Path) -> int:
    """The number of requests that the server of this file has answered."""
    return int.from_bytes(count.read_bytes(), "little")


def serve(count: Path) -> None:
    """Answers until the process is ended."""
    count.write_bytes(bytes(8))
    with open(count, "r+b") as file, mmap.mmap(file.fileno(), 8) as number:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        ready, requests = selectors.DefaultSelector(), 0
        ready.register(listener, selectors.EVENT_READ)
        print(listener.getsockname()[1], flush=True)
        while True:
            for key, _ in ready.select():
                if key.fileobj is listener:
                    ready.register(listener.accept()[0], selectors.EVENT_READ, bytearray())
                elif (answered := _answered(key.fileobj, key.data)) is None:
                    ready.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
                else:
                    requests += answered
                    number[:] = requests.to_bytes(8, "little")


def _answered(connection, waiting: bytearray) -> int | None:
    """Answers what came on a connection: the number of requests, None if the client is gone.

    `waiting` holds a request that has not come as a whole.
    """
    try:
        if not (data := connection.recv(2**16)):
            return None
        waiting += data
        *heads, rest = waiting.split(END)
        waiting[:] = rest
        connection.sendall(b"".join(map(_answer, heads)))  # small: it fits in the socket's buffer
        return len(heads)
    except OSError:  # of a client that was killed
        return None


def _answer(head: bytearray) -> bytes:
    path = head[: head.index(b".jpg")]
    body = picture(int(path[path.rindex(b"/") + 1 :]))
    return b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
