"""Search on a GPU, where FAISS sees one: exact, inverted lists, or a CAGRA graph.

The GPU only proposes rows; their scores come from the vector file, as on the CPU, so they agree to the last bit
wherever the same rows are proposed. All that is known of the device lies in `to_device` and `to_host`. FAISS takes no
id selectors there: a filtered search proposes more and drops what is not allowed, and where that would be too many,
the CPU searches exactly.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import RecipeError
from mmsearch.store.local.files.codes import Codes
from mmsearch.store.local.recipes.base import Recipe
from mmsearch.store.local.vector_index import ann_file
from mmsearch.store.local.vector_index.ann import AnnIndex, reason_of, search_parameters
from mmsearch.store.local.vector_index.ann_building import training_sample
from mmsearch.store.local.vector_index.base import Floats, Mask, Rows, as_matrix

MOST_CANDIDATES = 2048
"""The largest number of neighbours that FAISS selects on a GPU; more are searched on the CPU."""

FLAT, CAGRA = "Flat", "CAGRA"
"""Factory strings of recipes that learn nothing which the vector file does not hold: filled from it at every open."""

LOG = logging.getLogger("mmsearch")
_gpu: Any = faiss  # for the names that only GPU builds have
_TURN = threading.Lock()
"""Searches take turns: the scratch memory of one GPU serves one search at a time."""


def gpu_count() -> int:
    """How many GPUs this FAISS can use: 0 for faiss-cpu, and for faiss-gpu on a machine without one."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def require_gpu(recipe: Recipe) -> None:
    """Raises `RecipeError`, with what to install, where ``recipe`` needs a GPU and FAISS sees none."""
    if recipe.needs_gpu and not gpu_count():
        raise RecipeError(
            f"recipe {recipe.name} needs an NVIDIA GPU and FAISS {faiss.__version__} sees none: on a machine with one, "
            "install faiss-gpu-cu12 in place of faiss-cpu (pip uninstall faiss-cpu; pip install faiss-gpu-cu12)"
        )


def to_device(core: Any) -> Any:
    """A FAISS index on the GPU with what the index ``core`` in main memory holds; ``core`` may be empty and untrained.

    Raises `RecipeError` where this FAISS cannot have one like it there; only to be called where `gpu_count` is not 0.
    """
    try:
        if isinstance(core, _gpu.IndexHNSWCagra):
            if not hasattr(_gpu, "GpuIndexCagra"):
                raise RecipeError(
                    f"this FAISS ({faiss.__version__}) was built without cuVS and has no CAGRA: install faiss-gpu-cuvs "
                    "(conda, channel pytorch), or take recipe gpu_ivf"
                )
            config = _gpu.GpuIndexCagraConfig()
            config.device = 0
            return _gpu.GpuIndexCagra(_resources(), core.d, core.metric_type, config)
        options = _gpu.GpuClonerOptions()
        options.useFloat16 = True
        return _gpu.index_cpu_to_gpu(_resources(), 0, core, options)
    except RuntimeError as error:
        raise RecipeError(f"FAISS cannot move this index to the GPU: {reason_of(error)}") from error


def to_host(core: Any) -> Any:
    """The same index in main memory, which can be written to a file."""
    return _gpu.index_gpu_to_cpu(core) if hasattr(_gpu, "GpuIndex") and isinstance(core, _gpu.GpuIndex) else core


@cache
def _resources() -> Any:
    """FAISS's scratch memory and streams on the GPU: one for all indexes of this process, alive as long as it."""
    return _gpu.StandardGpuResources()


class GpuIndex(AnnIndex):
    """An `AnnIndex` whose FAISS index is resident on a GPU.

    Searching is safe from several threads; they take turns. Where the GPU gives up (memory, mostly), the CPU searches
    exactly from then on, and the log says so once.
    """

    _gave_up = False

    @classmethod
    def build(
        cls,
        matrix: npt.NDArray[np.float16],
        recipe: Recipe,
        *,
        text_vectors: npt.ArrayLike | None = None,
        threads: int | None = None,
        seed: int = 0,
    ) -> GpuIndex:
        """As `AnnIndex.build`, on the GPU; also `RecipeError` where there is none, or not memory enough."""
        if not recipe.needs_gpu:
            raise RecipeError(f"recipe {recipe.name} is made for the CPU")
        require_gpu(recipe)
        matrix = as_matrix(matrix)
        core = to_device(_empty(recipe, *matrix.shape))
        try:
            if not _lies_in_the_vectors(recipe):
                core.train(training_sample(matrix, recipe, text_vectors, seed))
            index = cls(core, recipe, matrix)
            index.add(threads=threads)
        except RuntimeError as error:
            raise RecipeError(f"FAISS cannot build recipe {recipe.name} on the GPU: {reason_of(error)}") from error
        return index

    @classmethod
    def open(
        cls,
        path: Path,
        recipe: Recipe,
        matrix: npt.NDArray[np.float16],
        *,
        codes: Codes | None = None,
        mapped: bool = False,
    ) -> GpuIndex:
        """As `AnnIndex.open`; rows that were committed since it was saved are taken in.

        Raises `RecipeError` where there is no GPU any more, or not memory enough.
        """
        require_gpu(recipe)
        stored = ann_file.read(path, recipe.name, as_matrix(matrix), mapped=False)
        core = to_device(_empty(recipe, *matrix.shape) if _lies_in_the_vectors(recipe) else stored)
        index = cls(core, recipe, matrix, codes=codes)
        try:
            index.add()
        except RuntimeError as error:
            raise RecipeError(f"FAISS cannot fill recipe {recipe.name} on the GPU: {reason_of(error)}") from error
        return index

    def save(self, path: Path) -> None:
        """As `AnnIndex.save`. Of an index that `open` fills from the vector file, only the seal is written."""
        learnt = not _lies_in_the_vectors(self.recipe)
        core = to_host(self._core) if learnt else faiss.IndexFlat(self.dim, faiss.METRIC_INNER_PRODUCT)
        ann_file.write(path, core, self.recipe.name, self._matrix)

    def add(self, *, threads: int | None = None) -> int:
        """As `AnnIndex.add`, but a CAGRA graph is made at once, of all rows: later ones stay behind, scored exactly."""
        if self.recipe.factory != CAGRA:
            return super().add(threads=threads)
        if self.covered:
            return 0
        rows = self._matrix.astype(np.float32)
        if not self._core.is_trained:
            self._core.train(rows)  # on a GPU, this makes the graph
        if not self._core.ntotal:
            self._core.add(rows)
        self._covered = int(self._core.ntotal)
        return self.covered

    def _takes_selector(self) -> bool:
        return False

    def _nearest(self, queries: Floats, wanted: int, settings: Mapping[str, int], mask: Mask | None) -> Rows | None:
        if wanted > MOST_CANDIDATES or self._gave_up:
            return None
        try:
            with _TURN:
                found = self._core.search(queries, wanted, params=self._search_parameters(settings, None, wanted))
        except RuntimeError as error:
            self._gave_up = True
            LOG.warning("the GPU gave up (%s): searching exactly, on the CPU", reason_of(error))
            return None
        rows: Rows = found[1]
        return rows

    def _search_parameters(self, settings: Mapping[str, int], selector: Any, wanted: int) -> Any:
        if hasattr(_gpu, "GpuIndexIVF") and isinstance(self._core, _gpu.GpuIndexIVF):
            return _gpu.SearchParametersIVF(nprobe=min(settings["nprobe"], self._core.nlist))
        if hasattr(_gpu, "GpuIndexCagra") and isinstance(
            self._core, _gpu.GpuIndexCagra
        ):  # keeps all it returns in view
            return _gpu.SearchParametersCagra(itopk_size=max(settings["ef_search"], wanted))
        return search_parameters(self._base, settings, None, wanted)


def _lies_in_the_vectors(recipe: Recipe) -> bool:
    return recipe.factory in (FLAT, CAGRA)


def _empty(recipe: Recipe, vectors: int, dim: int) -> Any:
    """An index in main memory of the kind that ``recipe`` names for ``vectors`` vectors, empty and untrained."""
    if recipe.factory == CAGRA:
        # Between vectors of length 1, L2 puts neighbours in the same order as the inner product does.
        return _gpu.IndexHNSWCagra(dim, 32, faiss.METRIC_L2)
    try:
        return faiss.index_factory(dim, recipe.factory_for(vectors, dim), faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise RecipeError(f"FAISS cannot build recipe {recipe.name}: {reason_of(error)}") from error


def index_class(recipe: Recipe) -> type[AnnIndex]:
    """What builds and opens vector indexes of ``recipe``."""
    return GpuIndex if recipe.needs_gpu else AnnIndex
