"""Packed files: what the reader makes of damaged ones, beside Python's gzip."""

from __future__ import annotations

import gzip
import zlib

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mufin.catalogs.opening import Part, opened
from mufin.errors import MufinError

TEXT = b"".join(b"line %d, and some more of it\n" % i for i in range(500))
WHOLE = gzip.compress(TEXT)


def by_python(content: bytes) -> bytes | None:
    """What gzip reads, None for a damaged file."""
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return None


@settings(max_examples=200, deadline=None)
@example(b"")
@example(WHOLE + WHOLE)
@example(WHOLE + bytes(100))
@example(WHOLE + b"garbage")
@example(WHOLE + WHOLE[:30])
@example(gzip.compress(b""))
@given(
    st.builds(
        lambda cut, more: WHOLE[:cut] + more, st.integers(0, len(WHOLE)), st.binary(max_size=9)
    )
    | st.builds(
        lambda at, byte: WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :],
        st.integers(0, len(WHOLE) - 1),
        st.integers(0, 255),
    )
)
def test_damaged_gzip_is_read_as_by_python(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("packed") / "lines.gz"
    path.write_bytes(content)
    try:
        with opened(Part(path)) as file:
            read = file.read()
    except MufinError as error:
        assert str(error) == f"{path} is a broken or cut-off gzip file; fetch it again"
        read = None
    assert read == by_python(content)
