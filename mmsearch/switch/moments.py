"""Which of the frames that a decoder gives now stands for which of the segments that were committed before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Span = tuple[float | None, float | None]
"""Start and end in seconds; ``None`` where a segment has no time."""


def match(stored: Sequence[Span], decoded: Sequence[Span]) -> list[int] | None:
    """For each stored segment the number of the decoded one that shows it; ``None`` where that cannot be said.

    The same file, decoder and settings give the same segments. Where a video is cut otherwise now (it was indexed with
    another interval, or by another version of a library), each segment is shown by the frame whose moment overlaps it
    most, or lies nearest to it.
    """
    if list(stored) == list(decoded):
        return list(range(len(stored)))
    if not decoded or any(time is None for span in (*stored, *decoded) for time in span):
        return list(range(len(stored))) if len(stored) == len(decoded) else None
    starts, ends = (np.array([span[side] for span in decoded], dtype=float) for side in (0, 1))
    found = []
    for span in stored:
        start, end = float(span[0] or 0.0), float(span[1] or 0.0)
        overlap = np.minimum(ends, end) - np.maximum(starts, start)  # below 0: how far apart they are
        found.append(int(np.argmax(overlap)))
    return found
