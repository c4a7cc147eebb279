"""What a trained encoder brings for the hubness correction: where the captions and photos lie that it learned from.

See `mmsearch.models.encoders.caption_centroids`. The files lie beside the weights and name their digest.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.encoders.caption_centroids import write_caption_centroids, write_photo_sample
from mmsearch.store.local.vector_index.ann_building import centroids_of_groups
from mmsearch.training.pairs import Pairs, image_vectors

GROUPS = 1000
A_GROUP = 8
"""Captions of a group at least, on average."""
CAPTIONS = 100_000
"""So many captions are looked at, one in every so many of a larger set."""
PHOTOS = 1000
FEWEST = 64
"""Fewer different captions, or photos, than this do not say where others lie."""


def write_hubness_samples(directory: Path, pairs: Pairs, learned: int | None) -> None:
    """Encodes captions and photos of ``pairs`` by the encoder in ``directory`` and writes both files there.

    ``learned``: so many numbers of a vector, from the first, tell captions apart; ``None``: all of them.
    """
    encoder = open_encoder(os.fspath(directory))
    captions = captions_of(pairs)
    if len(captions) >= FEWEST:
        write_caption_centroids(directory, encoder.spec.digest, groups_of(encoder.encode_texts(captions)[:, :learned]))
    if len(pairs) >= FEWEST:
        photos = image_vectors(encoder, [pairs.images[place] for place in _spread(len(pairs), PHOTOS)])
        write_photo_sample(directory, encoder.spec.digest, photos)


def captions_of(pairs: Pairs) -> list[str]:
    """Different captions, `CAPTIONS` at most."""
    captions = list(dict.fromkeys(text for texts in pairs.captions for text in texts))
    return [captions[place] for place in _spread(len(captions), CAPTIONS)]


def groups_of(vectors: FloatArray) -> FloatArray:
    """The centroids of groups of captions, (groups, dim), from their vectors (`FEWEST` or more, dim)."""
    return centroids_of_groups(vectors, min(GROUPS, len(vectors) // A_GROUP))


def _spread(count: int, most: int) -> list[int]:
    """Up to ``most`` of so many places, evenly spread."""
    places: list[int] = np.linspace(0, max(0, count - 1), min(count, most)).astype(int).tolist()
    return places
