"""Lists of the whole library are made before the page asks for them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.server.warming import lists_ready
from mmsearch.store.local.store import LocalStore
from tests.support.colours import ColourEncoder


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lists that are read from the catalogue, in the order in which that happens."""
    read: list[str] = []
    ids, months = LocalStore._ids, LocalStore._months

    def ids_read(self: LocalStore, where: object, order: str, *place: int) -> list[int]:
        read.append(order)
        return ids(self, where, order, *place)  # type: ignore[arg-type]

    def months_read(self: LocalStore, where: object) -> list[tuple[str | None, int]]:
        read.append("months")
        return months(self, where)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalStore, "_ids", ids_read)
    monkeypatch.setattr(LocalStore, "_months", months_read)
    return read


def fill(index: Index, count: int) -> None:
    rows = [
        {"path": f"{count}/{n}.jpg", "modality": "image", "taken_at": f"20{n:02d}-01-01T00:00:00"} for n in range(count)
    ]
    vectors = np.random.default_rng(count).standard_normal((count, index.encoder_spec.dim))
    index.add_embeddings(vectors.astype(np.float32), rows, normalize=True)


def until(made: list[str], count: int) -> None:
    ends = time.monotonic() + 20
    while len(made) < count:
        assert time.monotonic() < ends, made
        time.sleep(0.01)


def test_lists_are_made_at_the_start_and_after_a_change(tmp_path: Path, made: list[str]) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        fill(index, 5)
        with lists_ready(index.browse, every_s=0.05):
            until(made, 3)
            assert sorted(made) == ["months", "newest", "path"]
            assert len(index.browse.documents(limit=9)) == 5 and len(index.browse.months()) == 5
            assert len(made) == 3, "they were there"
            fill(index, 7)
            until(made, 6)
            time.sleep(0.3)
            assert sorted(made) == sorted(["months", "newest", "path"] * 2), "once for each version"
            assert len(index.browse.documents(order="path", limit=99)) == 12
        made.clear()
        fill(index, 3)
        time.sleep(0.2)
        assert not made, "nothing is made when it is over"


def test_a_list_that_is_being_made_is_not_made_twice(tmp_path: Path, made: list[str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        fill(index, 5)
        with ThreadPoolExecutor(8) as pool:
            lists = list(pool.map(lambda _: index.browse.documents(limit=9), range(32)))
        assert all(one == lists[0] for one in lists) and made == ["newest"]
