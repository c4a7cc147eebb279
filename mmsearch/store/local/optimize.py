"""Makes searching faster when an index has outgrown exact search, and never at an unknown price in recall.

The index keeps answering as before until the new vector index is complete; the manifest then names the new files
in one atomic step. Text and image queries are tuned apart: text vectors lie outside the distribution of image
vectors, so the parameters that serve one kind are wrong for the other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import RecipeError, UsageError
from mmsearch.models.encoders.base import Encoder
from mmsearch.store.local.catalogue import Space
from mmsearch.store.local.catalogue.checksums import cut, seal_file
from mmsearch.store.local.commit import compact
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.options import OptimizeOptions as OptimizeOptions
from mmsearch.store.local.recipes import Recipe, choose, load_recipe, recipe_folder
from mmsearch.store.local.vector_index import AnnIndex, ExactIndex, Tuned, gpu_count, index_class, require_gpu, tune
from mmsearch.store.local.vector_index.tuning import EXACT_SECONDS, FEWEST_QUERIES, latency_of
from mmsearch.store.local.vectors import BuiltIndex

FEWEST_VECTORS = 1_000
"""With fewer, quantisers have nothing to learn from, and exact search takes microseconds."""
_TEXT_QUERIES = 600
"""In each set of text queries: generic captions, captions about what the index holds, and what people asked."""
_IMAGE_QUERIES = 400
_EXACT_ANSWERS_S = 300.0
"""About so long may the exact answers to all queries take; where scoring takes longer, fewer are asked, down to a
quarter, and the interval of the recall is wider."""
_TIMED_TOGETHER = 16
"""Queries scored in one batch to learn how long many take."""
_IMAGE_NOISE = 0.35
"""Length of the random step from an indexed image to a query like it: another photo of the same thing, not itself."""


@dataclass(frozen=True)
class OptimizeReport:
    """What was done. ``recipe`` answers from now on; ``tuned`` is empty where that is exact search.

    ``reason`` says why this recipe, in a sentence. ``exact_ms`` is the median of exact search, one query, one thread.
    """

    recipe: str
    reason: str
    vectors: int
    exact_ms: float
    tuned: Mapping[str, Tuned]
    bytes: int
    reclaimed: int


def optimize(
    index: IndexDirectory,
    encoder: Encoder,
    captions: Sequence[str] | npt.NDArray[np.floating[Any]],
    options: OptimizeOptions = OptimizeOptions(),
    progress: Callable[[str], None] = lambda _: None,
    *,
    extra_queries: Sequence[str] = (),
) -> OptimizeReport:
    """Builds, tunes and switches to the vector index that serves this index best.

    ``captions`` are generic descriptions of pictures, or their vectors, (n, dim) of length 1. Text queries are those
    captions as they are, and others about what this index holds, composed of them: which of the two are harder depends
    on the vectors and the recipe, so parameters must serve both. ``extra_queries`` are queries of people, tuned on as
    they are, apart where there are 40 or more. A random half of each set chooses the parameters; the other half, which
    that choice never saw, gives the recall that is reported: that of the set which is served worst.

    Raises:
        UsageError: too few captions.
        RecipeError: no such recipe, or it cannot be built over these vectors, or on this machine.
        IndexBusy: another process is writing to the index.
    """
    index.check_encoder(encoder.spec)
    if options.recipe != "auto":
        require_gpu(load_recipe(options.recipe))
    if len(captions) < FEWEST_QUERIES:
        raise UsageError(f"{len(captions)} captions were given; tuning needs at least {FEWEST_QUERIES}")
    with index.writing(encoder=encoder.spec) as writable:
        return _Optimizer(writable, encoder, options, progress).run(captions, extra_queries)


class _Optimizer:
    """One run of `optimize`."""

    def __init__(
        self, index: IndexDirectory, encoder: Encoder, options: OptimizeOptions, progress: Callable[[str], None]
    ) -> None:
        self._index = index
        self._encoder = encoder
        self._options = options
        self._progress = progress

    def run(
        self, captions: Sequence[str] | npt.NDArray[np.floating[Any]], extra_queries: Sequence[str]
    ) -> OptimizeReport:
        reclaimed = self._compact() if self._options.compact else 0
        space = self._index.space()
        matrix = self._index.matrix(space)
        if not len(matrix):
            return self._stay_exact("the index is empty", 0, 0.0, reclaimed)
        if not isinstance(captions, np.ndarray):
            self._progress(f"encoding {len(captions)} captions")
            captions = self._encoder.encode_texts(captions)
        asked = self._encoder.encode_texts(extra_queries) if extra_queries else captions[:0]
        sets = _query_sets(captions.astype(np.float32), matrix, asked.astype(np.float32))
        exact = ExactIndex(matrix, self._index.codes(space))
        exact_ms = latency_of(
            lambda query: exact.search(query, self._options.k, threads=1), sets[0][:20], EXACT_SECONDS
        ).p50_ms
        recipe = self._recipe(len(matrix), exact_ms)
        if recipe.kind == "exact" and not recipe.needs_gpu:
            reason = f"exact search takes {exact_ms:.1f} ms for {len(matrix):,} vectors"
            return self._stay_exact(reason, len(matrix), exact_ms, reclaimed)
        return self._build(space, matrix, recipe, sets, exact, exact_ms, reclaimed)

    def _recipe(self, vectors: int, exact_ms: float) -> Recipe:
        if self._options.recipe == "auto":
            return choose(vectors, exact_ms, has_gpu=gpu_count() > 0)
        recipe = load_recipe(self._options.recipe)
        if recipe.kind != "exact" and vectors < FEWEST_VECTORS:
            raise RecipeError(
                f"recipe {recipe.name} learns from vectors, at least {FEWEST_VECTORS:,} of them; this index has "
                f"{vectors:,} and is searched exactly in no time"
            )
        return recipe

    def _compact(self) -> int:
        self._progress("compacting")
        return compact(self._index)

    def _build(
        self,
        space: Space,
        matrix: npt.NDArray[np.float16],
        recipe: Recipe,
        texts: Sequence[npt.NDArray[np.float32]],
        exact: ExactIndex,
        exact_ms: float,
        reclaimed: int,
    ) -> OptimizeReport:
        self._progress(f"building {recipe.name} over {len(matrix):,} vectors")
        ann = index_class(recipe).build(matrix, recipe, text_vectors=np.concatenate(texts))
        self._progress(f"tuning {recipe.name} to recall@{self._options.k} {self._options.recall:g}")
        k, recall = self._options.k, self._options.recall
        images, *texts = _affordable([_image_queries(matrix), *texts], exact, k)
        tuned = {
            "text": tune(ann, texts[0], k, recall, also=texts[1:], kind="text", exact=exact),
            "image": tune(ann, images, k, recall, kind="image", exact=exact),
        }
        if self._options.recipe == "auto" and not tuned["text"].pays:
            reason = (
                f"{recipe.name} was tried: recall {tuned['text'].recall:.3f} at {tuned['text'].latency.p50_ms:.1f} ms, "
                f"no gain over exact search at {exact_ms:.1f} ms"
            )
            return self._stay_exact(reason, len(matrix), exact_ms, reclaimed)
        files = self._switch(space, ann, recipe, tuned)
        size = sum((self._index.path / name).stat().st_size for name in files)
        reason = f"recall@{self._options.k} {tuned['text'].recall:.3f} on text queries that tuning never saw"
        return OptimizeReport(recipe.name, reason, len(matrix), exact_ms, tuned, size, reclaimed)

    def _switch(self, space: Space, ann: AnnIndex, recipe: Recipe, tuned: Mapping[str, Tuned]) -> tuple[str, str]:
        """Writes the new files under names of their own, then lets the manifest name them: one atomic step."""
        number = self._next_number()
        files = (f"vector-index-{number}.faiss", f"vector-index-{number}.toml")
        ann.save(self._index.path / files[0])
        source = Path(self._options.recipe)
        if not source.is_file():
            source = recipe_folder() / f"{recipe.name}.toml"
        (self._index.path / files[1]).write_bytes(source.read_bytes())
        with self._index.catalogue.transaction():
            for name in files:
                seal_file(self._index.catalogue.sql, self._index.path / name)
        plain = {kind: asdict(values) for kind, values in tuned.items()}
        built = BuiltIndex(files[0], files[1], recipe.name, space.spec.key, ann.covered, plain)
        self._index.with_manifest(recipe=recipe.name, vector_index=asdict(built))
        self._drop_files_but(files)
        return files

    def _stay_exact(self, reason: str, vectors: int, exact_ms: float, reclaimed: int) -> OptimizeReport:
        self._index.with_manifest(recipe="exact", vector_index=None)
        self._drop_files_but(())
        return OptimizeReport("exact", reason, vectors, exact_ms, {}, 0, reclaimed)

    def _next_number(self) -> int:
        numbers = [int(match[1]) for name in self._own_files() if (match := re.search(r"-(\d+)\.", name))]
        return max(numbers, default=0) + 1

    def _own_files(self) -> list[str]:
        return [file.name for file in self._index.path.glob("vector-index-*")]

    def _drop_files_but(self, keep: Sequence[str]) -> None:
        """Readers that have the old files mapped keep them until they let go."""
        for name in set(self._own_files()) - set(keep):
            (self._index.path / name).unlink(missing_ok=True)
            cut(self._index.catalogue.sql, name, 0)


def _query_sets(
    captions: npt.NDArray[np.float32], matrix: npt.NDArray[np.float16], asked: npt.NDArray[np.float32]
) -> list[npt.NDArray[np.float32]]:
    """Sets of text queries, each (n, dim) float32: about what lies in this index, generic ones, and what people asked.

    The last only where there are enough of them; a few join the first set.
    """
    composed = _text_queries(captions, matrix)
    generic = captions[np.random.default_rng(0).permutation(len(captions))[:_TEXT_QUERIES]]
    if len(asked) >= FEWEST_QUERIES:
        return [composed, generic, asked]
    return [np.concatenate([asked, composed]), generic]


def _text_queries(captions: npt.NDArray[np.float32], matrix: npt.NDArray[np.float16], seed: int = 0) -> Any:
    """Text queries about what lies in this index, (n, dim) float32 of length 1.

    For some rows each: the sum of the one or two captions nearest to it and of one drawn at random. Generic captions
    alone are spread evenly, but people ask about what they have, where vectors lie densely and neighbours are harder
    to tell apart, and they add what is in no caption. On 200,000 vectors around Flickr8k's images, at a setting that
    finds 0.989 of the neighbours of its captions, these queries give 0.988, generic captions 0.991; with version 0 of
    the built-in encoder it was generic captions 0.979 for a true 0.954. A sum of text vectors stays on the text
    side of the modality gap, but what is noise in each averages out: where texts are mostly noise, inverted lists miss
    more of the neighbours of a single caption (`benchmarks/tuning_queries.py`).
    """
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(len(matrix), min(_TEXT_QUERIES, len(matrix)), replace=False))
    nearest = np.argsort(-(matrix[rows].astype(np.float32) @ captions.T), axis=1)[:, :2]
    second = captions[nearest[:, 1]] * (np.arange(len(rows)) % 2)[:, None]
    queries = captions[nearest[:, 0]] + second + captions[random.integers(0, len(captions), len(rows))]
    queries = np.repeat(queries, -(-FEWEST_QUERIES // len(queries)), axis=0)  # very small indexes
    return queries / np.linalg.norm(queries, axis=1, keepdims=True)


def _affordable(sets: Sequence[npt.NDArray[np.float32]], exact: ExactIndex, k: int) -> list[npt.NDArray[np.float32]]:
    """As many queries of each set as can be answered exactly in time; a quarter of each in any case.

    Queries in a batch share what is read, so a batch is timed, not a query.
    """
    some = sets[0][:_TIMED_TOGETHER]
    started = time.perf_counter()
    exact.search(some, k)
    each = (time.perf_counter() - started) / len(some)
    share = min(1.0, max(0.25, _EXACT_ANSWERS_S / (each * sum(map(len, sets)))))
    return [one[: max(FEWEST_QUERIES, int(len(one) * share))] for one in sets]


def _image_queries(matrix: npt.NDArray[np.float16], seed: int = 0) -> npt.NDArray[np.float32]:
    """Queries like indexed images, and not equal to any: a random step away from some of them, of length 1 again."""
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(len(matrix), min(_IMAGE_QUERIES, len(matrix)), replace=False))
    steps = random.standard_normal((len(rows), matrix.shape[1]), dtype=np.float32)
    steps *= _IMAGE_NOISE / np.linalg.norm(steps, axis=1, keepdims=True)
    queries = matrix[rows].astype(np.float32) + steps
    queries = np.repeat(queries, -(-FEWEST_QUERIES // len(queries)), axis=0)  # very small indexes
    result: npt.NDArray[np.float32] = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    return result


def describe_tuned(tuned: Mapping[str, Any]) -> str:
    """One line on what a kind of query gets, from `Tuned` as plain values (what the manifest holds)."""
    return (
        f"recall@{tuned['k']} {tuned['recall']:.3f} ({tuned['recall_low']:.3f}–{tuned['recall_high']:.3f}), "
        f"{tuned['latency']['p50_ms']:.1f} ms (p95 {tuned['latency']['p95_ms']:.1f} ms); "
        f"exact {tuned['exact']['p50_ms']:.1f} ms"
    )
