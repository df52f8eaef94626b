"""A process that decodes pictures within bounds: python -m mufin.corpus.decode_worker.

Decoders are written in C. The bytes of a stranger may crash one, or keep it busy without end, and
no Python in the same process can stop that. `mufin.corpus.decoding` starts this process, with a
socket as its standard input, and replaces it when it ends.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import struct
import time

from mufin.corpus import pixels

SECONDS = 10  # of processor time per picture
REQUEST = struct.Struct("<IQ")  # side of the answer in pixels, number of bytes that follow
# Whether pixels follow or a reason, number of bytes of notes, one per line, and of what comes then
ANSWER = struct.Struct("<?IQ")
READY = b"+"  # sent once, when the process can decode
NO_MEMORY = errno.ENOMEM  # exit code where not even the bytes of the picture have room


def main() -> None:
    """Answer requests until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends this one
    _bound(resource.RLIMIT_DATA, pixels.MEMORY)
    _bound(resource.RLIMIT_CORE, 0)
    with socket.socket(fileno=0) as connection:
        connection.sendall(READY)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders print there
        try:
            while _answered(connection):
                pass
        except MemoryError:
            os._exit(NO_MEMORY)
        except OSError:  # the other end has closed
            pass


def _answered(connection: socket.socket) -> bool:
    """Answer one request; False if there is none any more."""
    request = connection.recv(REQUEST.size, socket.MSG_WAITALL)
    if len(request) < REQUEST.size:
        return False
    size, length = REQUEST.unpack(request)
    content = connection.recv(length, socket.MSG_WAITALL)
    _allow(SECONDS)
    found: set[str] = set()
    answer = pixels.decode(content, size, found)
    body = answer.encode() if isinstance(answer, str) else answer.tobytes()
    notes = "\n".join(sorted(found)).encode()
    head = ANSWER.pack(not isinstance(answer, str), len(notes), len(body))
    connection.sendall(head + notes + body)
    return True


def _bound(kind: int, value: int) -> None:
    """Lower a limit of this process for good."""
    _, most = resource.getrlimit(kind)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, value))


def _allow(seconds: int) -> None:
    """From now on, the kernel ends this process (SIGXCPU) after these seconds of processor time."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(time.process_time()) + 1 + seconds  # the kernel counts whole seconds
    if most == resource.RLIM_INFINITY or soft < most:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, most))


if __name__ == "__main__":
    main()
