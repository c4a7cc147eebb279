"""Vectors of training images from an index, by which hard negatives are found without encoding anything again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mmsearch.core.errors import UsageError
from mmsearch.models.encoders.base import FloatArray
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.training.pairs import ImageSource, Pairs

_ROWS = 20_000


def vectors_of_index(directory: Path, pairs: Pairs) -> FloatArray:
    """What an index holds for the images of pairs, (images, dim) float32 of length 1; zeros for those it lacks.

    Raises:
        IndexMissing, IndexDamaged: there is no index, or it cannot be read.
        UsageError: it holds none of the images.
    """
    index = IndexDirectory.open(directory)
    try:
        space = index.space()
        matrix = index.matrix(space)
        rows: dict[str, int] = {}
        for start in range(0, space.row_count, _ROWS):
            part = range(start, min(start + _ROWS, space.row_count))
            for found in index.catalogue.find_rows(space.id, part):
                if found.modality == "image" and found.ordinal == 0:
                    rows[os.path.realpath(index.path_of(found))] = found.row
        vectors = np.zeros((len(pairs), space.spec.dim), dtype=np.float32)
        known = [(place, row) for place, image in enumerate(pairs.images) if (row := rows.get(_key(image))) is not None]
        if not known:
            raise UsageError(
                f"the index {directory} holds none of the {len(pairs)} images to train on: index them first, or mine "
                "hard negatives without it (--neighbours)"
            )
        places, at = zip(*known, strict=True)
        vectors[list(places)] = matrix[list(at)].astype(np.float32)
        return vectors
    finally:
        index.close()


def _key(image: ImageSource) -> str:
    """As the index names it: samples of archives lie below their archive."""
    path = os.path.realpath(image.path)
    return f"{path}/{image.member}" if image.member else path
