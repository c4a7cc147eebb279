"""How long lists of a large index take: pages by date and by path, months, folders, values, duplicates.

    python benchmarks/browse_lists.py [--documents 100000] [--duplicates]

Documents are invented (dates over 20 years, 500 folders, cameras), vectors are random with one near-duplicate in 50.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish
from common.photos import invented_photo

from mmsearch.api.browsing import Browsing
from mmsearch.core.types import EncoderSpec
from mmsearch.filters import OneOf
from mmsearch.query.duplicates import duplicates
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.store import LocalStore

SPEC = EncoderSpec("lists", "e" * 64, 512, "none")


def made(folder: Path, count: int) -> LocalStore:
    """An index of so many invented documents."""
    random = np.random.default_rng(0)
    IndexDirectory.create(folder / "index", SPEC.name, SPEC)
    store = LocalStore.open(folder / "index")
    for start in range(0, count, 20_000):
        size = min(20_000, count - start)
        vectors = random.standard_normal((size, SPEC.dim)).astype(np.float32)
        vectors[::50] = vectors[1::50][: len(vectors[::50])]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        documents = []
        for number in range(start, start + size):
            day = int(random.integers(7300))
            documents.append(invented_photo(number, day, is_dated=number % 10 != 0))
        store.upsert(documents, vectors)
    return store


def timed(ask: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Milliseconds, on the clock and of the CPU, of the first time and of the median of the others."""
    wall, cpu = [], []
    for _ in range(repeats):
        used, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        ask()
        after = resource.getrusage(resource.RUSAGE_SELF)
        wall.append(1000 * (time.perf_counter() - started))
        cpu.append(1000 * (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime))
    first, later = (wall[0], cpu[0]), (float(np.median(wall[1:] or wall)), float(np.median(cpu[1:] or cpu)))
    names = ("first", "first_cpu", "median", "median_cpu")
    return {name: round(value, 1) for name, value in zip(names, (*first, *later), strict=True)}


def main() -> None:
    """See the module."""
    parser = command_line(__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--duplicates", action="store_true", help="Also look for duplicates among all documents.")
    parser.add_argument("--index", type=Path, help="A folder where the index is made, or was.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.index or Path(temporary)
        there = (folder / "index").is_dir()
        store = LocalStore.open(folder / "index") if there else made(folder, given.documents)

        class Asked:
            def __init__(self) -> None:
                self.store = store

        browse = Browsing(lambda task: task(None, Asked()))
        last = store.count() - 60
        asked: dict[str, Callable[[], Any]] = {
            "newest, first page": lambda: browse.documents(limit=60),
            "newest, last page": lambda: browse.documents(limit=60, offset=last),
            "newest, of a year": lambda: browse.documents("after:2010 before:2011", limit=60),
            "by path, first page": lambda: browse.documents(order="path", limit=60),
            "by path, last page": lambda: browse.documents(order="path", limit=60, offset=last),
            "months": browse.months,
            "months of a camera": lambda: browse.months('camera:"Camera 3"'),
            "folders": browse.folders,
            "count": browse.count,
            "cameras": lambda: browse.values("camera"),
            "types": lambda: browse.values("type"),
            "span of dates": lambda: browse.span("date"),
        }
        figures = {name: timed(ask, given.repeats) for name, ask in asked.items()}
        if given.duplicates:
            figures["duplicates"] = timed(lambda: list(duplicates(store, OneOf("modality", ("image",)))), 1)
        store.close()
    publish("browse_lists", {"documents": given.documents, "milliseconds": figures}, given)


if __name__ == "__main__":
    main()
