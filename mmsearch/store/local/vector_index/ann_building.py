"""What building a FAISS index takes: a sample to train on, k-means that is quick and repeatable, and threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from mmsearch.core.system import usable_cores
from mmsearch.store.local.recipes.base import Recipe
from mmsearch.store.local.vector_index.base import Floats, Matrix, check_queries, gather

ADD_BLOCK = 16_384
"""Vectors widened to float32 at a time while adding: 32 MB at 512-d."""

PROJECTED = 64
"""Dimensions in which building looks for the list of a vector."""

COMPARED = 8
"""Lists found in the projection that are compared in full."""

GROUPING_ROUNDS = 8
"""More change hardly anything."""


def training_sample(matrix: Matrix, recipe: Recipe, text: npt.ArrayLike | None, seed: int) -> Floats:
    """Vectors to train on, float32 (s, dim): a random sample, of which ``text_share`` are text vectors.

    Text vectors are first moved by the difference of the means, across the modality gap. Left where they are,
    they draw centroids to a place without images, and text queries then visit empty lists (measured).
    """
    training = recipe.training
    lists = recipe.lists(len(matrix)) if training.lists_per_root else 0
    size = min(len(matrix), max(lists * training.points_per_list, training.vectors))
    random = np.random.default_rng(seed)
    texts = np.empty((0, matrix.shape[1]), np.float32)
    if text is not None and training.text_share:
        texts = check_queries(text, matrix.shape[1])
        texts = texts[random.permutation(len(texts))[: int(size * training.text_share)]]
    rows = np.sort(random.choice(len(matrix), size - len(texts), replace=False))
    images = gather(matrix, rows).astype(np.float32)
    if len(texts):
        texts = texts + (images.mean(axis=0) - texts.mean(axis=0))
    return np.concatenate([images, texts])


@contextmanager
def prepared(core: Any, sample: Floats, seed: int) -> Iterator[None]:
    """Bound k-means to the sample, and make it repeatable and quick. (Of a new index, before anyone shares it.)"""
    base: Any = faiss.downcast_index(core)
    if isinstance(base, faiss.IndexHNSW):
        base.hnsw.efConstruction = 80
    if not isinstance(base, faiss.IndexIVF):
        yield
        return
    base.cp.seed = seed + 1
    base.cp.max_points_per_centroid = max(39, -(-len(sample) // base.nlist))
    base.cp.niter = 10
    ivf: Any = base
    if _is_worth_projecting(ivf):
        projected = faiss.IndexPreTransform(_projection(sample), faiss.IndexFlat(PROJECTED, ivf.metric_type))
        ivf.clustering_index = projected
    try:
        yield
    finally:
        ivf.clustering_index = None


def _is_worth_projecting(ivf: Any) -> bool:
    return bool(ivf.d >= 4 * PROJECTED and ivf.nlist >= PROJECTED)


def _projection(vectors: Floats) -> Any:
    """A trained PCA to `PROJECTED` dimensions of ``vectors``, float32 (m, dim)."""
    pca = faiss.PCAMatrix(vectors.shape[1], PROJECTED)
    pca.train(vectors[:: max(1, len(vectors) // (64 * PROJECTED))])
    return pca


@contextmanager
def quick_assignment(base: Any, vectors: int) -> Iterator[None]:
    """While many vectors are added, find their lists through a projection of the centroids.

    Comparing every vector with every list is most of what building takes. The nearest few lists of the projection
    are compared in full, so nearly every vector still comes to its nearest list (`benchmarks/build_time.py`).
    Queries always see all centroids in full.
    """
    if not isinstance(base, faiss.IndexIVF) or vectors < ADD_BLOCK or not _is_worth_projecting(base):
        yield
        return
    exact = base.quantizer
    centroids = exact.reconstruct_n(0, base.nlist)
    coarse = faiss.IndexPreTransform(_projection(centroids), faiss.IndexFlat(PROJECTED, base.metric_type))
    coarse.add(centroids)
    full = faiss.IndexFlat(base.d, base.metric_type)
    full.add(centroids)
    both = faiss.IndexRefine(coarse, full)
    both.k_factor = COMPARED
    base.quantizer = both
    try:
        yield
    finally:
        base.quantizer = exact


@contextmanager
def omp_threads(threads: int | None) -> Iterator[None]:
    """Let FAISS use ``threads`` threads (default: the cores of this process) for calls of this thread.

    OpenMP keeps this number for each thread apart, so no other thread notices; it is put back at the end.
    """
    before, wanted = faiss.omp_get_max_threads(), max(1, threads or usable_cores())
    if before == wanted:
        yield
        return
    faiss.omp_set_num_threads(wanted)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def centroids_of_groups(vectors: Floats, groups: int) -> Floats:
    """The centroids of so many groups of ``vectors``, float32 (n, dim), by k-means: (groups, dim); the same for the
    same ones. There must be at least as many vectors as groups.
    """
    kmeans = faiss.Kmeans(vectors.shape[1], groups, niter=GROUPING_ROUNDS, seed=1, min_points_per_centroid=1)
    kmeans.train(np.ascontiguousarray(vectors, dtype=np.float32))
    centroids: Floats = np.asarray(kmeans.centroids)
    return centroids
