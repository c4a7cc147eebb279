"""When two pictures show the same: by how alike their vectors are, and what is known of them that speaks against it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from mmsearch.store.base import FloatArray, Look

SAME = 0.99
"""Two pictures are near-duplicates if their vectors are at least so similar (and nothing known speaks against it)."""
SCALED = 0.02
"""So much less is enough for two pictures of one shape whose sides differ by `OTHER_SCALE` at least: a photo and its
smaller copy, of which an encoder sees a little less."""
OTHER_SCALE = 1.25
SAME_SHAPE = 0.02
SAME_SECONDS = 3
_UNKNOWN = np.iinfo(np.int64).min
Places = npt.NDArray[np.intp]


class Looks:
    """The sizes and times of many pictures."""

    def __init__(self, columns: npt.NDArray[np.int64]) -> None:
        self._columns = columns
        self._width, self._height, self._time = columns[:3]
        self.are_pictures: npt.NDArray[np.bool_] = columns[3] > 0

    @classmethod
    def of(cls, looks: Iterable[Look | None]) -> Looks:
        """Of pictures, and of what is none, ``None``, which shows the same as nothing else."""
        rows = [
            (0, 0, _UNKNOWN, 0) if one is None else (one.width or 0, one.height or 0, _time(one.taken_at), 1)
            for one in looks
        ]
        return cls(np.array(rows, dtype=np.int64).reshape(-1, 4).T)

    @classmethod
    def joined(cls, parts: Iterable[Looks]) -> Looks:
        """One after another."""
        return cls(np.concatenate([one._columns for one in parts], axis=1))

    def at(self, places: Places) -> Looks:
        """Some of them, in this order."""
        return Looks(self._columns[:, places])

    def same(
        self, one: Places, other: Places, cosines: FloatArray | None = None, near: float = SAME
    ) -> npt.NDArray[np.bool_]:
        """Which of some pairs of places, side by side, are near-duplicates: both have one shape, were not taken at
        different times, and their vectors have a cosine of ``near`` at least, a little less for a smaller copy.
        Without ``cosines``: which could be.
        """
        width, height, time = self._width, self._height, self._time
        areas = width[one] * height[other], height[one] * width[other]
        is_sized = (areas[0] > 0) & (areas[1] > 0)
        other_shape = is_sized & (np.abs(areas[0] - areas[1]) > SAME_SHAPE * areas[1])
        is_timed = (time[one] != _UNKNOWN) & (time[other] != _UNKNOWN)
        apart = np.abs(np.where(is_timed, time[one], 0) - np.where(is_timed, time[other], 0))
        could_be = self.are_pictures[one] & self.are_pictures[other]
        could_be &= ~other_shape & (apart <= SAME_SECONDS * 10**6)
        if cosines is None:
            return could_be
        small, large = np.minimum(width[one], width[other]), np.maximum(width[one], width[other])
        is_scaled = is_sized & (large >= OTHER_SCALE * small)
        return could_be & (cosines >= np.where(is_scaled, near - SCALED, near))


def _time(iso: str | None) -> int:
    """In microseconds."""
    try:
        when = None if iso is None else datetime.fromisoformat(iso).replace(tzinfo=None)
    except ValueError:
        when = None
    return _UNKNOWN if when is None else (when - datetime(1970, 1, 1)) // timedelta(microseconds=1)
