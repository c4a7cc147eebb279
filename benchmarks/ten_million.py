"""Ten million vectors: built by `optimize`, opened and searched, and the memory that takes.

    python benchmarks/ten_million.py --vectors 10000000 --folder /tmp/ten-million

Image vectors of common/vectors.py, written in chunks as a vector file (10 GB at 512-d). The index directory around it
is a real one, except that its catalogue commits the rows without naming documents: vectors are what is measured. One
process builds (`optimize.optimize` with the recipe that `auto` takes), another opens and searches; each says
its peak memory, apart for what it allocated and for pages of files, which the system takes back when it needs them.
Text queries for tuning and those searched for afterwards are different draws.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common.environment import Memory
from common.output import command_line, publish
from common.vectors import Source, write_matrix

from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import Encoder
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.optimize import OptimizeOptions, optimize
from mmsearch.store.local.vector_index import ExactIndex
from mmsearch.store.local.vector_index.tuning import confidence, latency_of, recall_of
from mmsearch.store.local.vectors import Vectors

CAPTIONS = 4_000
"""Text vectors that stand for the shipped captions."""


class SyntheticTexts(Encoder):
    """Texts are numbered draws of common/vectors.py."""

    spec = EncoderSpec("synthetic", "5e" * 20, 512, "none")
    input_size, batch_size, max_text_tokens = 1, 1, 8

    def prepare_image(self, image: object) -> np.ndarray:
        """There are no images."""
        raise NotImplementedError

    def encode_prepared(self, inputs: np.ndarray) -> np.ndarray:
        """There are no images."""
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """A draw of its own for each text."""
        return Source().texts(len(texts), 7)

    def count_tokens(self, text: str) -> int:
        """One."""
        return 1


def make(folder: Path, vectors: int) -> IndexDirectory:
    """The index directory, made where there is none, its rows committed."""
    encoder = SyntheticTexts()
    if not IndexDirectory.exists(folder):
        IndexDirectory.create(folder, "synthetic", encoder.spec)
    index = IndexDirectory.open(folder)
    space = index.space()
    if space.row_count != vectors:
        write_matrix(folder / space.file, vectors, Source())
        # Not through `writing`, which would cut off the rows that are about to be committed.
        with index.writing(cut=False) as writer, writer.catalogue.transaction():
            writer.catalogue.set_row_count(space.id, vectors)
    index.vector_file(space).cut(vectors)  # writes the codes where they are missing
    return index


class Peaks(threading.Thread):
    """Watches this process's memory four times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = Memory.now()
        self._stop_event = threading.Event()
        self.start()

    def run(self) -> None:
        """Keeps the maxima."""
        while not self._stop_event.wait(0.25):
            now = Memory.now()
            self.most = Memory(*(max(a, b) for a, b in zip(self.most, now, strict=True)))

    def finish(self) -> dict[str, float]:
        """The maxima, in MB."""
        self._stop_event.set()
        self.join()
        return self.most._asdict()


def build(folder: Path, vectors: int, recall: float, recipe: str) -> dict[str, Any]:
    """`optimize` over all of it."""
    index, peaks, steps = make(folder, vectors), Peaks(), []
    started = time.perf_counter()

    def step(what: str) -> None:
        steps.append({"step": what, "at_s": round(time.perf_counter() - started)})
        print(steps[-1], file=sys.stderr, flush=True)

    captions = [str(number) for number in range(CAPTIONS)]
    report = optimize(index, SyntheticTexts(), captions, OptimizeOptions(recipe, recall), step)
    return {
        "recipe": report.recipe, "reason": report.reason, "seconds": round(time.perf_counter() - started),
        "steps": steps, "exact_ms": round(report.exact_ms, 1), "index_bytes": report.bytes,
        "index_bytes_per_vector": round(report.bytes / vectors, 1),
        "tuned": {
            kind: {
                "parameters": dict(one.parameters),
                "recall": one.recall, "low": one.recall_low, "high": one.recall_high,
                "reached": one.reached, "p50_ms": round(one.latency.p50_ms, 2), "p95_ms": round(one.latency.p95_ms, 2),
            }
            for kind, one in report.tuned.items()
        },
        "peak_mb": peaks.finish(),
    }  # fmt: skip


def ask(folder: Path, vectors: int, count: int) -> dict[str, Any]:
    """Open, and search with queries that tuning never saw, one at a time on one thread."""
    source = Source()
    queries = {"text": source.texts(count, 0), "image": source.images(count // 2, 10**6)}
    before = Memory.now()
    started = time.perf_counter()
    index = IndexDirectory.open(folder)
    opened = Vectors(index, index.space())
    open_ms = (time.perf_counter() - started) * 1000
    started = time.perf_counter()
    opened.search(queries["text"][:1], 10, kind="text", threads=1)
    result: dict[str, Any] = {
        "recipe": opened.recipe, "open_ms": round(open_ms, 1),
        "first_query_ms": round((time.perf_counter() - started) * 1000, 1), "before_mb": before._asdict(),
    }  # fmt: skip
    found = {}
    for kind, rows in queries.items():
        found[kind] = opened.search(rows, 10, kind=kind, threads=1)  # type: ignore[call-overload]
        latency = latency_of(lambda q, kind=kind: opened.search(q, 10, kind=kind, threads=1), rows)
        result[kind] = {"p50_ms": latency.p50_ms, "p95_ms": latency.p95_ms, "p99_ms": latency.p99_ms}
    result["after_mb"] = Memory.now()._asdict()
    exact = ExactIndex(index.matrix(index.space()), index.codes(index.space()))
    for kind, rows in queries.items():
        recalls = recall_of(found[kind], exact.search(rows, 10))
        result[kind] |= {"recall@10": float(recalls.mean()), "interval": confidence(recalls, 10)}
    result["exact_p50_ms"] = latency_of(lambda q: exact.search(q, 10, threads=1), queries["text"][:8], 5).p50_ms
    result["after_exact_mb"] = Memory.now()._asdict()
    return result


def main() -> None:
    """Runs both in processes of their own and writes ``results/ten_million_N.json``."""
    parser = command_line(__doc__)
    parser.add_argument("--vectors", type=int, default=10_000_000)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--recipe", default="auto")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--folder", type=Path, required=True, help="where the index is made, and kept")
    parser.add_argument("--only", choices=("build", "ask"), help="and print it, instead of both")
    options = parser.parse_args()
    if options.only == "build":
        print(json.dumps(build(options.folder, options.vectors, options.recall, options.recipe)))
        return
    if options.only == "ask":
        print(json.dumps(ask(options.folder, options.vectors, options.queries)))
        return
    result: dict[str, Any] = {"vectors": options.vectors, "dim": 512, "data": "benchmarks/common/vectors.py"}
    for part in ("build", "ask"):
        command = [sys.executable, __file__, *sys.argv[1:], "--only", part]
        result[part] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    publish(f"ten_million_{options.vectors}", result, options)


if __name__ == "__main__":
    main()
