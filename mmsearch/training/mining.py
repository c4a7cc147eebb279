"""Vectors of training images from an index, by which hard negatives are found without encoding anything again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np

from mmsearch.core.errors import UsageError
from mmsearch.models.encoders.base import FloatArray
from mmsearch.store.local.store import LocalStore
from mmsearch.training.pairs import ImageSource, Pairs


def vectors_of_index(directory: Path, pairs: Pairs) -> FloatArray:
    """What an index holds for the images of pairs, (images, dim) float32 of length 1; zeros for those it lacks.

    Raises:
        IndexMissing, IndexDamaged: there is no index, or it cannot be read.
        UsageError: it holds none of the images.
    """
    with contextlib.closing(LocalStore.open(directory)) as store:
        segments: dict[str, int] = {}
        for block in store.blocks():
            for segment in store.fetch(block.ids.tolist()):
                if segment.modality == "image" and segment.ordinal == 0:
                    segments[os.path.realpath(segment.path)] = segment.id
        vectors = np.zeros((len(pairs), store.spec.dim), dtype=np.float32)
        known = [
            (place, id_) for place, image in enumerate(pairs.images) if (id_ := segments.get(_key(image))) is not None
        ]
        if not known:
            raise UsageError(
                f"the index {directory} holds none of the {len(pairs)} images to train on: index them first, or mine "
                "hard negatives without it (--neighbours)"
            )
        places, ids = zip(*known, strict=True)
        vectors[list(places)] = store.vectors(np.array(ids, dtype=np.int64))
        return vectors


def _key(image: ImageSource) -> str:
    """As the index names it: samples of archives lie below their archive."""
    path = os.path.realpath(image.path)
    return f"{path}/{image.member}" if image.member else path
