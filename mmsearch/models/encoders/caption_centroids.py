"""Where captions lie in the space of one encoder, and where photos lie: by these, hubs are known.

Some pictures lie near whatever caption there is and are found for questions that they do not answer. How near a picture
lies to captions in general says by how much its scores are to be corrected (NNN: Bowman et al., 2024), and the more the
captions are like those that the encoder was trained for, the better it says so. Texts near whatever photo there is are
known in the same way.

Beside the weights lies ``caption_middles.npz``, the centroids of groups of many captions: ``encoder`` (its digest),
``middles`` int8 (n, m), of length 1 with their ``scale`` float32 (n, 1). They have the first m numbers of the space,
in which captions are told apart; the others count as 0. ``photo_sample.npz`` is the same of single photos, whole
vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.core.arrays import dequantised, quantised, read_npz

if TYPE_CHECKING:
    from mmsearch.models.encoders.base import FloatArray

FILE = "caption_middles.npz"
PHOTO_FILE = "photo_sample.npz"
NEIGHBOURS = 8
"""So many of the nearest captions tell how much of a hub a picture is, and of the nearest photos, a text."""


def nearest_mean(scores: FloatArray) -> FloatArray:
    """The mean of the ``NEIGHBOURS`` highest scores of each row, or of all if they are fewer: (n, captions) to (n,)."""
    few = min(NEIGHBOURS, scores.shape[1])
    means: FloatArray = np.partition(scores, -few, axis=1)[:, -few:].mean(axis=1)
    return means


def nearness(vectors: FloatArray, centroids: FloatArray) -> FloatArray:
    """How near rows of length 1, (n, dim), lie to captions with these ``centroids`` (or to photos), (rows, m): (n,)."""
    return nearest_mean(vectors[:, : centroids.shape[1]] @ centroids.T)


def caption_shares(texts: FloatArray, learned: int) -> FloatArray:
    """How much of a caption each of ``texts`` (q, dim) of length 1 is: (q,), 0 to 1.

    In the first ``learned`` numbers, those of the centroids, a caption has nearly all of its length. The name of a
    thing has half of it elsewhere; of that captions know nothing, and to correct scores with names by them does harm.
    """
    first = texts[:, :learned]
    shares: FloatArray = np.clip(2 * np.einsum("ij,ij->i", first, first) - 1, 0, 1).astype(np.float32)
    return shares


def read_caption_centroids(directory: Path, digest: str) -> FloatArray | None:
    """Those in the folder of an encoder, float32 (captions, m); ``None`` where there are none for this ``digest``."""
    return _read(directory / FILE, digest)


def read_photo_sample(directory: Path, digest: str) -> FloatArray | None:
    """As `read_caption_centroids`: single photos, float32 (photos, dim)."""
    return _read(directory / PHOTO_FILE, digest)


def write_caption_centroids(directory: Path, digest: str, centroids: FloatArray) -> None:
    """Makes the file from rows of any length above 0, (captions, m)."""
    _write(directory / FILE, digest, centroids)


def write_photo_sample(directory: Path, digest: str, photos: FloatArray) -> None:
    """Makes the file from rows of any length above 0, (photos, dim)."""
    _write(directory / PHOTO_FILE, digest, photos)


def _read(path: Path, digest: str) -> FloatArray | None:
    stored = read_npz(path, lambda encoder: encoder == digest)
    if stored is None or not {"middles", "scale"} <= stored.keys():
        return None
    rows: FloatArray = dequantised(stored["middles"], stored["scale"])
    return rows if rows.ndim == 2 and rows.size and np.isfinite(rows).all() else None


def _write(path: Path, digest: str, rows: FloatArray) -> None:
    middles, scale = quantised(rows / np.linalg.norm(rows, axis=1, keepdims=True), axis=1)
    np.savez_compressed(path, allow_pickle=False, encoder=np.array(digest), middles=middles, scale=scale)
