"""R@k between two matrices of vectors, in both directions, as papers on image–text retrieval print it.

What is called recall here is the fraction of queries with at least one right answer among the first k: the
name and the definition are those of CLIP_benchmark, with whose figures these are compared.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import UsageError

Integers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.floating]
Ties = Literal["pessimistic", "optimistic", "first"]


@dataclass(frozen=True)
class Direction:
    """One direction of cross-modal retrieval: the place of the best right answer to each query.

    ``ranks`` int64, (queries,), from 1; ``queries`` int64, (queries,): which rows of the query matrix were
    asked, those with at least one right answer; ``gallery`` how many items were searched.
    """

    ranks: Integers
    queries: Integers
    gallery: int

    def recall(self, k: int) -> float:
        """R@k as CLIP_benchmark has it: the fraction of queries with a right answer in the first ``k``."""
        return float(np.mean(self.ranks <= k))


@dataclass(frozen=True)
class TwoWayRecall:
    """Text→image (each caption a query) and image→text (any of the image's captions is right)."""

    text_to_image: Direction
    image_to_text: Direction

    def recalls(self, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
        """R@k for each k in both directions, named as CLIP_benchmark names them."""
        directions = {"image_retrieval": self.text_to_image, "text_retrieval": self.image_to_text}
        return {f"{name}_recall@{k}": d.recall(k) for name, d in directions.items() for k in ks}


def two_way_recall(
    texts: Vectors,
    images: Vectors,
    images_of_text: Sequence[Collection[int]],
    ties: Ties = "pessimistic",
    block_scores: int = 4_000_000,
) -> TwoWayRecall:
    """Ranks of the right answers in both directions between two sets of vectors, by inner product.

    ``texts`` (n, dim) and ``images`` (m, dim), float, rows of length 1 for cosines; ``images_of_text`` n
    collections of row numbers of ``images``: what CLIP_benchmark's ``positive_pairs`` marks in its row
    (clip_benchmark/metrics/zeroshot_retrieval.py). Texts without an image and images without a text are no
    queries, but stay in the gallery. At most ``block_scores`` scores (and at least one row) exist at once.

    See ``best_ranks`` for ``ties``.
    """
    if len(images_of_text) != len(texts):
        raise UsageError(f"{len(texts)} text vectors but positives of {len(images_of_text)} texts; expected one each")
    texts_of_image: list[list[int]] = [[] for _ in range(len(images))]
    for text, positives in enumerate(images_of_text):
        for image in positives:
            if not 0 <= image < len(images):
                raise UsageError(f"text {text} names image {image}; there are {len(images)}, counted from 0")
            texts_of_image[image].append(text)
    return TwoWayRecall(
        text_to_image=best_ranks(texts, images, images_of_text, ties, block_scores),
        image_to_text=best_ranks(images, texts, texts_of_image, ties, block_scores),
    )


def best_ranks(
    queries: Vectors,
    gallery: Vectors,
    positives: Sequence[Collection[int]],
    ties: Ties = "pessimistic",
    block_scores: int = 4_000_000,
) -> Direction:
    """The place of each query's best positive when the gallery is sorted by inner product.

    ``positives``: for each query the gallery rows that are right. Items with exactly the score of the best
    positive are placed, by ``ties``: ``pessimistic`` wrong ones before it, so that vectors that are all equal
    earn nothing (the default); ``optimistic`` after it; ``first`` by row number, as a stable sort would.
    CLIP_benchmark leaves it to ``torch.topk``, which lies between the first two.

    Half precision is widened to float32 first. Scores that differ only by rounding are no ties, and rounding
    may depend on the shape of a block: compare figures made with the same ``block_scores``.
    """
    _check_matrices(queries, gallery, positives)
    if ties not in ("pessimistic", "optimistic", "first"):
        raise UsageError(f'ties is "{ties}"; expected "pessimistic", "optimistic" or "first"')
    asked = np.array([row for row, right in enumerate(positives) if len(right)], dtype=np.int64)
    if not len(asked):
        raise UsageError("no query has a right answer in the gallery; check the positives")
    columns = _widened(gallery).T
    step = max(1, block_scores // len(gallery))
    ranks = np.empty(len(asked), dtype=np.int64)
    for start in range(0, len(asked), step):
        rows = asked[start : start + step]
        scores = _widened(queries[rows]) @ columns
        for offset, row in enumerate(rows):
            right = np.unique(np.fromiter(positives[row], dtype=np.int64))
            ranks[start + offset] = _best_rank(scores[offset], right, ties)
    return Direction(ranks, asked, len(gallery))


def _best_rank(scores: Vectors, right: Integers, ties: Ties) -> int:
    best = scores[right].max()
    rank = 1 + int(np.count_nonzero(scores > best))
    if ties == "optimistic":
        return rank
    tied_right = right[scores[right] == best]
    if ties == "first":
        return rank + int(np.count_nonzero(scores[: tied_right[0]] == best))
    return rank + int(np.count_nonzero(scores == best)) - len(tied_right)


def _widened(vectors: Vectors) -> Vectors:
    return vectors.astype(np.result_type(vectors.dtype, np.float32), copy=False)


def _check_matrices(queries: Vectors, gallery: Vectors, positives: Sequence[Collection[int]]) -> None:
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1] or not len(gallery):
        raise UsageError(
            f"queries have shape {queries.shape} and the gallery {gallery.shape}; "
            "expected (n, dim) and (m, dim) with one dim and m of 1 or more"
        )
    if len(positives) != len(queries):
        raise UsageError(f"{len(queries)} queries but {len(positives)} sets of positives; expected one each")
    for row, right in enumerate(positives):
        if any(not 0 <= item < len(gallery) for item in right):
            raise UsageError(f"query {row} names a positive outside the gallery of {len(gallery)}: {sorted(right)[:5]}")
    if not (np.isfinite(queries).all() and np.isfinite(gallery).all()):
        raise UsageError("vectors hold NaN or infinity; a rank among them means nothing")
