"""The contract on the stores that there are, and the query line on a store that has nothing but the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.types import Hit
from mmsearch.query import Question, Searcher, SearchOptions, encode_questions
from mmsearch.query.calibrate.calibration import refresh_calibration
from mmsearch.query.explain import explain
from mmsearch.query.searcher import run_queries
from mmsearch.store.base import NewDocument, NewSegment, Store
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.store import LocalStore
from tests.store.contract import FILTERS, SPEC, Contract, documents
from tests.support.colours import COLOURS, ColourEncoder
from tests.support.memory_store import MemoryStore


class TestLocalStore(Contract):
    def make(self, folder: Path) -> Store:
        IndexDirectory.create(folder / "index", SPEC.name, SPEC)
        return LocalStore.open(folder / "index")


class TestMemoryStore(Contract):
    def make(self, folder: Path) -> Store:
        return MemoryStore(SPEC)


class PlainStore(MemoryStore):
    """One that answers what lists ask with what `Store` makes of its other methods."""

    describe, listed, months, folders = Store.describe, Store.listed, Store.months, Store.folders


def test_what_a_store_need_not_answer_itself(tmp_path: Path) -> None:
    """Months, folders and order are right; of each document as much is known as the other methods tell."""
    made, vectors = documents(120)
    plain, full = PlainStore(SPEC), MemoryStore(SPEC)
    for store in (plain, full):
        store.upsert(made, vectors)
    for where in FILTERS.values():
        assert plain.months(where) == full.months(where) and plain.folders(where) == full.folders(where)
        for order in ("newest", "path"):
            mine, true = plain.listed(where, order, 50, 3), full.listed(where, order, 50, 3)
            assert [(one.path, one.size, one.date, one.info.width) for one in mine] == [
                (one.path, one.size, one.date, one.info.width) for one in true
            ]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStore, MemoryStore, ColourEncoder]:
    """The same 300 documents in both, calibrated."""
    folder, encoder = tmp_path_factory.mktemp("line"), ColourEncoder()
    random, names = np.random.default_rng(1), list(COLOURS)
    made, texts = [], []
    for number in range(300):
        kind, words = ("image", "image", "text", "video")[number % 4], random.choice(names, 2)
        segments = [NewSegment(text=" ".join(words) if kind == "text" else None)]
        if kind == "video":
            segments = [NewSegment(float(i), float(i + 1)) for i in range(3)]
        path, caption = f"{names[number % 8]}/{number}.jpg", "a zeppelin" if number % 50 == 0 else None
        made.append(
            NewDocument(path, kind, bytes([number // 200, number % 200]), segments, "/photos", caption=caption)  # type: ignore[arg-type]
        )
        texts += [" ".join(words)] * len(segments)
    vectors = encoder.encode_texts(texts) + 0.05 * random.standard_normal((len(texts), 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    Index.open(folder / "index", create=True, encoder=encoder).close()
    local, memory = LocalStore.open(folder / "index"), MemoryStore(encoder.spec)
    for store in (local, memory):
        store.upsert(made, vectors)
        assert refresh_calibration(store, encoder).covered == len(texts)
    return local, memory, encoder


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("red", SearchOptions()),
        ("red and blue", SearchOptions(k=50)),
        ("green path:red/**", SearchOptions(k=20)),
        ("green -blue", SearchOptions(k=30)),
        ('orange "a zeppelin"', SearchOptions()),
        ("zeppelin", SearchOptions(k=9)),
        ("type:text white", SearchOptions(k=40)),
        ("type:video violet -path:red/**", SearchOptions(k=15)),
        ("path:b*/*", SearchOptions(k=25)),
        ("yellow", SearchOptions(k=12, collapse=True)),
        ("black 17", SearchOptions(k=12, min_relevance=0.5)),
        ("white", SearchOptions(k=7, modalities=("image", "video", "text"), hubness=1.0)),
    ],
)
def test_the_query_line_needs_only_the_contract(
    stores: tuple[LocalStore, MemoryStore, ColourEncoder], query: str, options: SearchOptions
) -> None:
    local, memory, encoder = stores
    [mine], [oracle] = (
        run_queries(Searcher(store), encoder, [Question.of([query])], options) for store in (local, memory)
    )
    assert_same(mine, oracle)
    assert mine


def test_vectors_and_explanations_need_only_the_contract(
    stores: tuple[LocalStore, MemoryStore, ColourEncoder],
) -> None:
    local, memory, encoder = stores
    vectors = encoder.encode_texts(["red", "blue yellow"])
    pairs = zip(
        *(Searcher(store).nearest(vectors, "text", SearchOptions(k=11)) for store in (local, memory)), strict=True
    )
    for mine, oracle in pairs:
        assert_same(mine, oracle)
    [query] = Searcher(local).store.spec and [Question.of(["red zeppelin -blue"])]

    [encoded] = encode_questions(encoder, [query])
    path = Path("/photos/red/0.jpg")
    first, second = (explain(Searcher(store), encoder, encoded, path, with_heat=False) for store in (local, memory))
    assert first.parts == pytest.approx(dict(second.parts), abs=1e-3) and first.words == second.words


def assert_same(mine: list[Hit], oracle: list[Hit]) -> None:
    """Equal but for rounding, by which neighbours may change places."""
    assert len(mine) == len(oracle)
    totals = [[sum(hit.parts.values()) for hit in hits] for hits in (mine, oracle)]
    assert totals[0] == pytest.approx(totals[1], abs=2e-3)
    by_path = {hit.path: hit for hit in oracle}
    common = [hit for hit in mine if hit.path in by_path]
    assert len(common) >= 0.9 * len(mine)
    for hit in common:
        other = by_path[hit.path]
        assert hit.parts == pytest.approx(dict(other.parts), abs=2e-3) and hit.modality == other.modality
        assert (hit.relevance is None) == (other.relevance is None)
