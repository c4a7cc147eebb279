"""What does it cost to write an index of a million vectors as Parquet, and to make an index of that again?

    python benchmarks/exchange.py [--rows 1000000] [--dim 512] [--folder DIR]

Vectors are random directions, documents pictures of one segment. Reported are seconds, bytes, the peak of memory that
is no file's (`RssAnon`, sampled; a mapped vector file is the page cache's), and whether the vectors come back as they
were, bit by bit.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
from common.output import command_line, publish
from common.timing import timed
from ingest_import import write_folder

from mmsearch.core.types import EncoderSpec
from mmsearch.ingest.datasets import import_folder
from mmsearch.ingest.exchange import export_parquet, import_parquet
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.store import LocalStore


def anonymous_mb() -> float:
    """Megabytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def measured(task: Callable[[], Any], answer: Queue[Any]) -> None:
    """Runs a task; gives seconds, and megabytes at its start and at their highest."""
    before, peak, done = anonymous_mb(), [0.0], threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], anonymous_mb())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        took, _ = timed(task)
    finally:
        done.set()
        sampler.join()
    answer.put({"seconds": round(took, 1), "mb_before": round(before), "mb_peak": round(peak[0])})


def write(index: Path, folder: Path, answer: Queue[Any]) -> None:
    """Exports, in a process of its own."""
    store = LocalStore.open(index)
    measured(lambda: export_parquet(store, folder), answer)


def read(index: Path, folder: Path, answer: Queue[Any]) -> None:
    """Imports, in a process of its own."""
    store = LocalStore.open(index)
    measured(lambda: import_parquet(store, folder), answer)


def apart(task: Callable[..., None], *arguments: Path) -> dict[str, float]:
    """What a task in a new process measures."""
    context = get_context("spawn")
    answer: Queue[Any] = context.Queue()
    process = context.Process(target=task, args=(*arguments, answer))
    process.start()
    result: dict[str, float] = answer.get()
    process.join()
    return result


def main() -> None:
    """Runs the benchmark and writes its result."""
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="for the files, several GB; by default a temporary one")
    arguments = parser.parse_args()
    spec = EncoderSpec("any", "0" * 64, arguments.dim, "none")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        place = Path(name)
        write_folder(place / "made", arguments.rows, arguments.dim)
        for index in ("first", "second"):
            IndexDirectory.create(place / index, "any", spec)
        import_folder(IndexDirectory.open(place / "first"), place / "made")
        written = apart(write, place / "first", place / "out")
        read_again = apart(read, place / "second", place / "out")
        first, second = (LocalStore.open(place / index) for index in ("first", "second"))
        same = first.size == second.size == arguments.rows and all(
            np.array_equal(a.vectors, b.vectors) for a, b in zip(first.blocks(), second.blocks(), strict=True)
        )
        size = sum(path.stat().st_size for path in (place / "out").iterdir())
        figures = {"rows": arguments.rows, "dim": arguments.dim, "export": written, "import": read_again}
        publish("exchange", {**figures, "parquet_mb": round(size / 1e6), "vectors_equal": same}, arguments)


if __name__ == "__main__":
    main()
