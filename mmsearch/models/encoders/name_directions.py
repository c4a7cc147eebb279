"""What a query that names things knows of where pictures of them lie.

The vector of a name is what a text encoder makes of it. Of common things it was learned from photos where their
pictures really lie (``scripts/name_directions.py``): a direction in the space of image vectors, by a ridge regression
from these to what an object detector or people's captions say. A query gets the directions of the names that it is
near to, by the half of the space that knows names; so a synonym, a plural and another language get them, too. A
caption, which has nearly all of its length in the other half, stays as it is.

Only queries are changed: vectors in an index, of images and of texts, do not depend on the file, which is therefore no
part of the encoder's digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsearch.core.arrays import dequantised, quantised, read_npz
from mmsearch.models.encoders.base import FloatArray

CAPTION, NAME = 0.95, 0.55
"""A text whose first half has this share of its length, squared, is a caption and gets nothing; is a name, all."""
NEAR, SHARPNESS, ENOUGH = 0.5, 3, 0.2
"""A name counts from this cosine on, by that power of what is above it; from this sum on a query gets all."""


@dataclass(frozen=True, eq=False)
class NameDirections:
    """``names`` (n, m) of length 1, as the last m numbers of the space see them; ``directions`` (n, dim), as long as
    they are to count beside a query of length 1.
    """

    names: FloatArray
    directions: FloatArray

    @classmethod
    def read(cls, path: Path, digest: str) -> NameDirections | None:
        """Those in a file; ``None`` where it is not for the encoder of this ``digest``, or damaged."""
        stored = read_npz(path, lambda encoder: encoder == digest)
        if stored is None or not {"names", "names_scale", "directions", "directions_scale"} <= stored.keys():
            return None
        return cls(*(dequantised(stored[name], stored[f"{name}_scale"]) for name in ("names", "directions")))

    def write(self, path: Path, digest: str) -> None:
        """Writes the file, in int8."""
        arrays = {}
        for name, rows in (("names", self.names), ("directions", self.directions)):
            arrays[name], arrays[f"{name}_scale"] = quantised(rows, axis=1)
        # Every process that asks once reads it: uncompressed it is 11 % larger and open at once.
        np.savez(path, allow_pickle=False, encoder=np.array(digest), **arrays)

    def added_to(self, queries: FloatArray) -> FloatArray:
        """Queries (q, dim) of length 1 with the directions of the names that they have, at length 1.

        Each half of a query keeps its share of the length: how much of a caption it is, others tell by that.
        """
        first = queries.shape[1] - self.names.shape[1]
        share = np.einsum("ij,ij->i", queries[:, :first], queries[:, :first])[:, None]
        is_name = np.clip((CAPTION - share) / (CAPTION - NAME), 0, 1)
        near = _unit(queries[:, first:]) @ self.names.T
        weights = np.maximum((near - NEAR) / (1 - NEAR), 0) ** SHARPNESS
        total = weights.sum(axis=1, keepdims=True)
        weights *= is_name * np.minimum(total / ENOUGH, 1) / np.maximum(total, 1e-9)
        moved = queries + weights @ self.directions
        halves = _unit(moved[:, :first]) * np.sqrt(share), _unit(moved[:, first:]) * np.sqrt(np.maximum(1 - share, 0))
        changed = weights.any(axis=1)
        rows: FloatArray = queries.copy()
        rows[changed] = np.hstack(halves)[changed]
        return rows


def _unit(rows: FloatArray) -> FloatArray:
    found: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
