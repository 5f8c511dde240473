"""Lines of a text file with their places, each within bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pipeline.data.archives import BOM, Content
from pipeline.errors import DataError

MAX_ROW_BYTES = 8 << 20  # of one line; the rest of a longer one is passed over


def lines(content: Content) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, byte offset and bytes of every line; of one over ``MAX_ROW_BYTES`` the first bytes beyond that.

    Lines end at a line feed and nowhere else. The byte order mark, if there is one, is part of the first line's place
    but not of its bytes.

    Raises:
        DataError: The bytes are not text, the archive is damaged, or there is too much of it.
    """
    offset, number = content.begin, 0
    with content.open() as stream:
        while (content.end is None or offset < content.end) and (raw := stream.readline(MAX_ROW_BYTES + 2)):
            size, end = len(raw), raw
            while size > MAX_ROW_BYTES and end and not end.endswith(b"\n"):
                end = stream.readline(MAX_ROW_BYTES)
                size += len(end)
            number += 1
            yield number, offset, raw.removeprefix(BOM) if offset == 0 else raw
            offset += size


def refuse_array(content: Content) -> None:
    """Recognise a JSON array that is spread over the lines of a file named as JSON Lines.

    Raises:
        DataError: It is one.
    """
    if content.begin:
        return
    with content.open() as stream:
        first = stream.readline(MAX_ROW_BYTES).removeprefix(BOM).strip()
    if not first.startswith(b"["):
        return
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        raise DataError(
            f"E_FORMAT: {content} begins with a JSON array, not with one object per line. "
            f"Set the source's `format: json`."
        ) from None
