"""Searching with vectors of one's own: the plain nearest documents by cosine, nothing added and nothing left out.

This is what the recall in `status` is about, so anyone can check it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import VectorError
from mmsearch.core.types import Hit
from mmsearch.store.local.catalogue import Catalogue, Found, RowArray
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.vector_index import Neighbours, QueryKind
from mmsearch.store.local.vectors import Vectors


def as_queries(vectors: npt.ArrayLike, dim: int) -> npt.NDArray[np.float32]:
    """(dim,) or (n, dim) numbers as float32 (n, dim) of length 1.

    Raises:
        VectorError: another shape, a value that is not finite, or a vector of length 0.
    """
    try:
        rows = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise VectorError(f"a query vector must be numbers of shape ({dim},) or (n, {dim}): {error}") from error
    rows = rows[None, :] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise VectorError(f"expected a vector of shape ({dim},) or vectors (n, {dim}), got {np.shape(vectors)}")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise VectorError("a query vector has length 0, or holds NaN or infinite values")
    unit: npt.NDArray[np.float32] = rows / lengths
    return unit


def nearest_documents(
    index: IndexDirectory,
    space_id: int,
    vectors: Vectors,
    queries: npt.NDArray[np.float32],
    kind: QueryKind,
    k: int,
    *,
    only: RowArray | None = None,
    without: RowArray | None = None,
) -> list[list[Hit]]:
    """The best segment of each of the ``k`` nearest documents, for each of ``queries`` (q, dim).

    Asks for exactly k rows first, since most documents have one segment, and for more where that gave fewer
    than k documents.
    """
    found = vectors.search(queries, k, kind=kind, only=only, without=without)
    answers = []
    for query, neighbours in zip(queries, found, strict=True):
        wanted = k
        while True:
            best = _best_segments(index.catalogue, space_id, neighbours)
            if len(best) >= k or len(neighbours.rows) < wanted:
                break
            wanted *= 4
            (neighbours,) = vectors.search(query[None, :], wanted, kind=kind, only=only, without=without)
        answers.append(_hits(index, best[:k]))
    return answers


def _best_segments(catalogue: Catalogue, space_id: int, neighbours: Neighbours) -> list[tuple[float, Found]]:
    scores = dict(zip(neighbours.rows.tolist(), neighbours.scores.tolist(), strict=True))
    found = catalogue.find_rows(space_id, list(scores))
    found.sort(key=lambda segment: (-scores[segment.row], segment.document_id, segment.ordinal))
    best: dict[int, tuple[float, Found]] = {}
    for segment in found:
        best.setdefault(segment.document_id, (scores[segment.row], segment))
    return list(best.values())


def _hits(index: IndexDirectory, best: Sequence[tuple[float, Found]]) -> list[Hit]:
    return [
        Hit(
            rank=rank,
            score=score,
            path=str(index.path_of(segment)),
            modality=segment.modality,
            segment=segment.ordinal,
            start_s=segment.start_s,
            end_s=segment.end_s,
            text=segment.text,
            parts={"similarity": score},
        )
        for rank, (score, segment) in enumerate(best, start=1)
    ]
