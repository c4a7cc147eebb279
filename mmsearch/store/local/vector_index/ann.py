"""Approximate search: FAISS codes propose candidates, the vector file has the last word.

A FAISS index built by a recipe keeps only what it needs to propose rows (lists, codes, a graph). Their
scores are computed again from the mapped vector file, so there is no second copy of the vectors, scores are
the same numbers that exact search gives, and rows that were appended after the index was built are found too:
they are scored exactly until `AnnIndex.add` takes them in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import RecipeError, VectorError
from mmsearch.store.local.files.codes import Codes
from mmsearch.store.local.recipes.base import Recipe
from mmsearch.store.local.vector_index import ann_building, ann_file
from mmsearch.store.local.vector_index.ann_building import omp_threads, prepared, quick_assignment, training_sample
from mmsearch.store.local.vector_index.base import (
    Allowed,
    Floats,
    Mask,
    Matrix,
    Neighbours,
    Rows,
    allowed_rows,
    as_matrix,
    best_first,
    check_k,
    check_queries,
    nothing,
)
from mmsearch.store.local.vector_index.exact import ExactIndex

EXACT_ROWS = 50_000
"""Filters that allow no more rows than this are answered exactly (at most about 2 ms)."""

EXACT_SHARE = 0.15
"""Filters that allow a smaller share than this are answered exactly: proposing would mostly propose in vain."""

MIN_K = 10
"""``k_factor`` multiplies at least this many: one wanted neighbour needs almost as many candidates as ten."""


class AnnIndex:
    """An index built by a recipe over the first ``covered`` rows of ``matrix``, float16 (n, dim).

    Searching changes nothing and sets nothing, so any number of threads may search at once. `add` must not
    run while others search the same object.
    """

    def __init__(
        self,
        core: Any,
        recipe: Recipe,
        matrix: npt.NDArray[np.float16],
        *,
        codes: Codes | None = None,
        mapped: bool = False,
    ) -> None:
        self._core, self._base = core, faiss.downcast_index(core)
        self._matrix = as_matrix(matrix)
        self._exact = ExactIndex(matrix, codes)
        self._mapped = mapped
        self._covered = int(core.ntotal)
        self._parameters: dict[tuple[int, ...], Any] = {}
        self.recipe = recipe
        if core.d != self.dim or core.ntotal > len(self._matrix):
            raise VectorError(
                f"the index holds {core.ntotal} vectors of {core.d} dimensions, the matrix has shape "
                f"{self._matrix.shape}; build the index again"
            )

    @classmethod
    def build(
        cls,
        matrix: npt.NDArray[np.float16],
        recipe: Recipe,
        *,
        text_vectors: npt.ArrayLike | None = None,
        threads: int | None = None,
        seed: int = 0,
    ) -> AnnIndex:
        """Train and fill the index that ``recipe`` describes over all rows of ``matrix``.

        ``text_vectors``, float32 (t, dim): vectors of text queries, for recipes that train on a share of them.
        Raises `RecipeError` where FAISS cannot build it for this dimension or number of vectors.
        """
        matrix = as_matrix(matrix)
        if recipe.kind != "ann" or recipe.needs_gpu:
            raise RecipeError(f"recipe {recipe.name} is not one that builds an index on the CPU")
        factory = recipe.factory_for(len(matrix), matrix.shape[1])
        sample = training_sample(matrix, recipe, text_vectors, seed)
        # Product quantisers train in many short parallel steps, which crawl where other work shares the cores.
        with omp_threads(threads if recipe.training.lists_per_root else 1):
            try:
                core = faiss.index_factory(matrix.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
                with prepared(core, sample, seed):
                    core.train(sample)
            except RuntimeError as error:
                raise RecipeError(
                    f"FAISS cannot build {factory!r} (recipe {recipe.name}) over {len(matrix)} vectors of "
                    f"{matrix.shape[1]} dimensions: {reason_of(error)}"
                ) from error
        index = cls(core, recipe, matrix)
        index.add(threads=threads)
        return index

    @classmethod
    def open(
        cls,
        path: Path,
        recipe: Recipe,
        matrix: npt.NDArray[np.float16],
        *,
        codes: Codes | None = None,
        mapped: bool = True,
    ) -> AnnIndex:
        """The index that `save` wrote, mapped rather than read where ``mapped``.

        ``codes`` (see `ExactIndex`) shorten what is searched exactly.

        Raises `IndexDamaged` where the file is missing, torn or not about the rows of ``matrix``: it is a
        cache, so the answer is to build it again.
        """
        return cls(
            ann_file.read(path, recipe.name, as_matrix(matrix), mapped), recipe, matrix, codes=codes, mapped=mapped
        )

    def save(self, path: Path) -> None:
        """Write the index to ``path``. A reader finds the old file or the new one, never a half of either."""
        ann_file.write(path, self._core, self.recipe.name, self._matrix)

    def with_matrix(self, matrix: npt.NDArray[np.float16]) -> AnnIndex:
        """The same index over a longer map of the same vector file."""
        return type(self)(self._core, self.recipe, matrix, mapped=self._mapped)

    @property
    def matrix(self) -> Matrix:
        """The vectors, float16 (n, dim)."""
        return self._matrix

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return int(self._matrix.shape[1])

    @property
    def covered(self) -> int:
        """How many rows, from row 0, the index proposes from; the rows behind them are scored exactly."""
        return self._covered

    def __len__(self) -> int:
        return len(self._matrix)

    def add(self, *, threads: int | None = None) -> int:
        """Take in the rows of the matrix that the index does not cover yet; returns how many.

        Raises `VectorError` for a mapped index, which cannot change: open it with ``mapped=False`` to add.
        """
        if self._mapped:
            raise VectorError("a mapped index cannot take in vectors; open it with mapped=False to add")
        start = self.covered
        with omp_threads(threads), quick_assignment(self._base, len(self) - start):
            for low in range(start, len(self), ann_building.ADD_BLOCK):
                self._core.add(self._matrix[low : low + ann_building.ADD_BLOCK].astype(np.float32))
                self._covered = int(self._core.ntotal)
        return self.covered - start

    def search(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        parameters: Mapping[str, int] | None = None,
        only: npt.ArrayLike | None = None,
        without: npt.ArrayLike | None = None,
        threads: int | None = None,
    ) -> list[Neighbours]:
        """About the ``k`` best rows for each of ``queries``, float32 (q, dim): one `Neighbours` a query.

        As `ExactIndex.search` in everything but this: rows may be missed for worse ones, the more seldom the
        higher ``parameters`` are (the recipe's defaults, overridden). There are always ``min(k, allowed
        rows)`` answers, and their scores are exact. Small or narrow allowed sets are searched exactly.
        """
        checked = check_queries(queries, self.dim)
        k = check_k(k)
        settings = self.recipe.check_parameters(parameters)
        allowed = allowed_rows(len(self), only, without)
        if not len(checked) or not allowed.count:
            return nothing(len(checked))
        narrow = not allowed.everything and (allowed.count <= EXACT_ROWS or allowed.count < EXACT_SHARE * len(self))
        if narrow or not self.covered or k >= self.covered:
            return self._exact.search_allowed(checked, k, allowed, threads)
        with omp_threads(1 if len(checked) == 1 else threads):
            proposed = self._propose(checked, k, settings, allowed)
        if proposed is None:
            return self._exact.search_allowed(checked, k, allowed, threads)
        tail = self._tail(allowed)
        return [self._answer(checked[i : i + 1], k, rows, tail, allowed, threads) for i, rows in enumerate(proposed)]

    def _propose(self, queries: Floats, k: int, settings: Mapping[str, int], allowed: Allowed) -> Rows | None:
        """Candidate rows, int64 (q, c), −1 where FAISS has none; ``None`` where the exact search is to serve."""
        wanted = max(k, MIN_K) * settings.get("k_factor", 1)
        mask = None if allowed.everything else allowed.as_mask(len(self))[: self.covered]
        selects = mask is not None and self._takes_selector()
        if mask is not None and not selects:
            wanted = math.ceil(wanted * len(mask) / max(1, int(mask.sum())))
        rows = self._nearest(queries, min(wanted, self.covered), settings, mask if selects else None)
        if rows is not None and mask is not None and not selects:
            rows = np.where((rows >= 0) & mask[rows], rows, -1)
        return rows

    def _takes_selector(self) -> bool:
        """Flat fast-scan indexes cannot skip rows while they scan; what they propose is filtered afterwards."""
        return isinstance(self._base, faiss.IndexIVF | faiss.IndexHNSW | faiss.IndexRaBitQ)

    def _nearest(self, queries: Floats, wanted: int, settings: Mapping[str, int], mask: Mask | None) -> Rows | None:
        """The rows, int64 (q, wanted), that FAISS finds nearest, of those in ``mask``, (covered,), if there is one."""
        selector = bits = None
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        rows: Rows = self._core.search(queries, wanted, params=self._search_parameters(settings, selector, wanted))[1]
        return rows

    def _search_parameters(self, settings: Mapping[str, int], selector: Any, wanted: int) -> Any:
        """`search_parameters`, made once for all searches without a selector: making them is a tenth of a search."""
        if selector is not None:
            return search_parameters(self._base, settings, selector, wanted)
        key = (wanted, *settings.values())
        if key not in self._parameters:
            self._parameters[key] = search_parameters(self._base, settings, None, wanted)
        return self._parameters[key]

    def _tail(self, allowed: Allowed) -> Allowed | None:
        """The allowed rows that the index does not cover."""
        if self.covered == len(self):
            return None
        rows = np.arange(self.covered, len(self), dtype=np.int64)
        if allowed.mask is not None:
            rows = rows[allowed.mask[self.covered :]]
        return Allowed(len(rows), rows=rows) if len(rows) else None

    def _answer(
        self, query: Floats, k: int, rows: Rows, tail: Allowed | None, allowed: Allowed, threads: int | None
    ) -> Neighbours:
        """Score the candidates exactly and merge in the tail; search exactly where too few were proposed."""
        rows = np.sort(rows[rows >= 0])
        covered = allowed.count - (0 if tail is None else tail.count)
        if len(rows) < min(k, covered):
            return self._exact.search_allowed(query, k, allowed, threads)[0]
        scores = self._exact.score(query[0], self._exact.pick(rows))
        if tail is not None:
            late = self._exact.search_allowed(query, k, tail, threads)[0]
            scores, rows = np.concatenate([scores, late.scores]), np.concatenate([rows, late.rows])
        return best_first(scores, rows, k)


def search_parameters(base: Any, settings: Mapping[str, int], selector: Any, wanted: int) -> Any:
    """What FAISS takes for one call; the shared index itself is never set."""
    make: Any = faiss  # FAISS's own type stubs do not know these keywords
    if isinstance(base, faiss.IndexIVFRaBitQ):
        return make.IVFRaBitQSearchParameters(nprobe=min(settings["nprobe"], base.nlist), sel=selector)
    if isinstance(base, faiss.IndexIVF):
        return make.SearchParametersIVF(nprobe=min(settings["nprobe"], base.nlist), sel=selector)
    if isinstance(base, faiss.IndexHNSW):
        return make.SearchParametersHNSW(efSearch=max(settings["ef_search"], wanted), sel=selector)
    if isinstance(base, faiss.IndexRaBitQ):
        return make.RaBitQSearchParameters(sel=selector)
    return None


def reason_of(error: RuntimeError) -> str:
    """The sentence inside a FAISS error, without the C++ signature and line."""
    return str(error).rsplit(": ", 1)[-1].strip()
