"""Random lives of an index, against a plain list: add, remove, search, optimize, compact, crash, reopen."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from mmsearch.core.types import MediaInfo
from mmsearch.store.local.catalogue import NewContent, NewSegment
from mmsearch.store.local.commit import compact
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.files import codes as code_file
from mmsearch.store.local.optimize import OptimizeOptions, optimize
from mmsearch.store.local.vectors import Vectors
from tests.store.local.test_optimize import DIM, TEXTS, HashEncoder, unit


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """So that codes begin, end and are overwritten within a short life."""
    with mock.patch.object(code_file, "BLOCK", 64):
        yield


class LifeOfVectors(RuleBasedStateMachine):
    """``self.alive`` is the oracle: path → vector of every document that must be found, and no other."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mmsearch-life-"))
        IndexDirectory.create(self.folder, "hash", HashEncoder.spec)
        self.index = IndexDirectory.open(self.folder)
        self.alive: dict[str, np.ndarray] = {}
        self.born = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.index.close()
            shutil.rmtree(self.folder)

    @rule(count=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
    def add(self, count: int, seed: int) -> None:
        self._append(unit(np.random.default_rng(seed).standard_normal((count, DIM))))

    @rule(seed=st.integers(0, 2**32 - 1))
    def add_many(self, seed: int) -> None:
        """Enough for quantisers to learn from."""
        if len(self.alive) < 3_000:
            self._append(unit(np.random.default_rng(seed).standard_normal((1_000, DIM))))

    def _append(self, rows: np.ndarray) -> None:
        with self.index.writing() as writer:
            space = writer.space()
            writer.vector_file(space).append(rows, at=space.row_count)
            with writer.catalogue.transaction():
                roots = writer.catalogue.roots()
                root = roots[0] if roots else writer.catalogue.add_root("/photos", is_relative=False)
                for number, vector in enumerate(rows):
                    path = f"{self.born}.jpg"
                    self.born += 1
                    segment = NewSegment(space.row_count + number)
                    new = NewContent(path.encode(), "x", "image", MediaInfo(), [segment])
                    content = writer.catalogue.add_content(space, new)
                    writer.catalogue.put_document(root.id, path, "image", 1, 1, content)
                    self.alive[path] = vector.astype(np.float16).astype(np.float32)
                writer.catalogue.set_row_count(space.id, space.row_count + len(rows))

    @precondition(lambda self: self.alive)
    @rule(share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
    def remove(self, share: float, seed: int) -> None:
        paths = sorted(self.alive)
        chosen = np.random.default_rng(seed).permutation(paths)[: max(1, int(share * min(50, len(paths))))]
        with self.index.writing() as writer, writer.catalogue.transaction():
            for path in chosen.tolist():
                writer.catalogue.remove_below(1, path)
                del self.alive[path]
            writer.catalogue.drop_unused_contents()

    @rule()
    def crash_after_appending(self) -> None:
        """Bytes behind the committed rows, as a crash between append and commit leaves them."""
        space = self.index.space()
        self.index.vector_file(space).append(np.full((3, DIM), 0.1, np.float32), at=space.row_count)

    @rule()
    def compact(self) -> None:
        with self.index.writing() as writer:
            compact(writer)

    @precondition(lambda self: len(self.alive) >= 1_000)
    @rule(recipe=st.sampled_from(["hnsw", "pq_scan", "rabitq"]))
    def optimize(self, recipe: str) -> None:
        optimize(self.index, HashEncoder(), TEXTS, OptimizeOptions(recipe=recipe, recall=0.9))

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = IndexDirectory.open(self.folder)

    @rule(k=st.integers(1, 30), seed=st.integers(0, 2**32 - 1))
    def search(self, k: int, seed: int) -> None:
        query = unit(np.random.default_rng(seed).standard_normal((1, DIM)))
        self.index.state()  # what another process changed is seen
        space = self.index.space()
        vectors = Vectors(self.index, space)
        dead = self.index.catalogue.dead_rows(space.id)
        (found,) = vectors.search(query, k, kind="text", without=dead if len(dead) else None)
        paths = {hit.row: hit.path for hit in self.index.catalogue.find_rows(space.id, found.rows.tolist())}
        assert len(found) == min(k, len(self.alive))
        assert not self.index.catalogue.has_wrong_blocks(space)
        assert not self.index.vector_file(space).codes.wrong_blocks(vectors.matrix)
        assert len(set(paths.values())) == len(found)
        scores = {path: float(vector @ query[0]) for path, vector in self.alive.items()}
        for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
            assert abs(scores[paths[row]] - score) < 2e-3  # the right vector under the right document
        if vectors.recipe == "exact" and len(found):
            best = sorted(scores.values(), reverse=True)[: len(found)]
            assert np.allclose(found.scores, best, atol=2e-3)


LifeOfVectors.TestCase.settings = settings(
    max_examples=int(os.environ.get("MMSEARCH_LIVES", "12")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLifeOfVectors = pytest.mark.slow(LifeOfVectors.TestCase)
