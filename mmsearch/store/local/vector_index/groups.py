"""Vectors in groups of near ones, by k-means."""

from __future__ import annotations

import faiss
import numpy as np

from mmsearch.store.local.vector_index.base import Floats

ROUNDS = 8
"""More change hardly anything."""


def centroids_of_groups(vectors: Floats, groups: int) -> Floats:
    """The centroids of so many groups of ``vectors``, float32 (n, dim): (groups, dim); the same for the same ones.

    There must be at least as many vectors as groups.
    """
    kmeans = faiss.Kmeans(vectors.shape[1], groups, niter=ROUNDS, seed=1, min_points_per_centroid=1)
    kmeans.train(np.ascontiguousarray(vectors, dtype=np.float32))
    centroids: Floats = np.asarray(kmeans.centroids)
    return centroids
