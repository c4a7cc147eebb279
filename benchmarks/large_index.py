"""A large index as people use it: cold queries, memory, optimize, recall on fresh text queries, filters.

    MMSEARCH_TEST_DATA=… python benchmarks/large_index.py --vectors 1000000
    … --folder /tmp/large --steps fill; … --folder /tmp/large --steps ask        (the timed steps apart)

Vectors are those of the Flickr8k images through the built-in encoder, replicated: each copy takes a random step of
length ``--noise`` and is brought back to length 1. They are committed through `Index.add_embeddings`. Queries are
the captions of the dev split through the text encoder; none of them has a part in tuning, which uses the captions that
ship with mmsearch. The open_clip index has synthetic vectors (common/vectors.py).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common.models import save_model
from common.output import command_line, publish
from common.timing import percentiles
from common.vectors import Source, flickr8k, replicate, write_matrix

from mmsearch import Index
from mmsearch.store.local.optimize import OptimizeOptions


def fill(index: Index, rows: np.ndarray) -> float:
    """Commits the rows as documents spread over folders of very different sizes; returns the seconds."""
    started = time.perf_counter()
    for start in range(0, len(rows), 100_000):
        numbers = range(start, min(len(rows), start + 100_000))
        described = [{"path": f"{folder_of(number)}/{number}.jpg", "modality": "image"} for number in numbers]
        index.add_embeddings(rows[numbers.start : numbers.stop], described, normalize=True)
    return time.perf_counter() - started


def folder_of(number: int) -> str:
    """Every 2nd document lies in ``half``, every 10,001st in ``rare``, and so on."""
    for step, name in ((10_001, "rare"), (1_009, "few"), (101, "some"), (11, "many"), (2, "half")):
        if number % step == 0:
            return name
    return "rest"


_QUERY = """
import sys
from mmsearch.cli import main
sys.argv = ["mmsearch", *sys.argv[1:]]
try:
    main()
finally:
    status = open("/proc/self/status").read()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print("PEAK", peak, "torch" in sys.modules, file=sys.stderr)
"""


def cold(index: Path, repeats: int) -> dict[str, Any]:
    """Wall and processor seconds and peak resident memory of `mmsearch query` as a process of its own.

    The files are in the system's cache, and the modules are compiled, as those of an installed package are.
    """
    seconds, peaks, torch = [], [], False
    command = [sys.executable, "-c", _QUERY, "query", "two dogs run in the snow", "--index", str(index)]
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ask = partial(subprocess.run, command, env=compiled, capture_output=True, text=True, check=True)
    ask()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(repeats):
        started = time.perf_counter()
        done = ask()
        seconds.append(time.perf_counter() - started)
        _, peak, imported = next(line for line in done.stderr.splitlines() if line.startswith("PEAK")).split()
        peaks.append(int(peak) / 1024)
        torch = torch or imported == "True"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(float(np.median(seconds)), 3), "fastest_s": round(min(seconds), 3),
            "mean_cpu_s": round(used / repeats, 3), "peak_mib": round(max(peaks)), "imports_torch": torch}  # fmt: skip


def recall(index: Index, queries: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Recall@k of searching by vector against the exact scores ``truth`` (q, k): ties count as right."""
    answers = index.search(vector=queries, query_kind="text", k=k)
    found = [np.array([hit.score for hit in hits]) for hits in answers]
    return float(np.mean([(got >= want[-1] - 1e-6).sum() / k for got, want in zip(found, truth, strict=True)]))


def exact_scores(rows: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """The k highest scores of each query by brute force in NumPy, (q, k) descending; over ``allowed`` rows only."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    count = len(rows) if allowed is None else len(allowed)
    for start in range(0, count, 100_000):
        part = slice(start, start + 100_000)
        scores = queries @ rows[part if allowed is None else allowed[part]].astype(np.float32).T
        best = np.sort(np.concatenate([best, scores], axis=1), axis=1)[:, -k:]
    return best[:, ::-1]


def latency(index: Index, queries: np.ndarray, k: int) -> dict[str, float]:
    """Milliseconds of searching by vector, one query at a time; see `timed`."""
    return timed(lambda number: index.search(vector=queries[number], query_kind="text", k=k), len(queries))


def timed(call: Callable[[int], object], times: int) -> dict[str, float]:
    """Milliseconds of ``call``: wall time, and the median of the processor time of all its threads together, which is
    what can be compared where others use the machine too."""
    wall, processor = [], []
    for number in range(times):
        started, used = time.perf_counter(), time.process_time()
        call(number)
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - used)
    return {**percentiles(wall), "cpu_p50_ms": percentiles(processor)["p50_ms"]}


def filters(index: Index, rows: np.ndarray, encoder: Any, repeats: int) -> list[dict[str, Any]]:
    """Filters of several selectivities against brute force over the same rows, through the query language."""
    from mmsearch.query import SearchOptions

    text = "a dog runs through water"
    query = encoder.encode_texts([text])[0]
    names = np.array([folder_of(number) for number in range(len(rows))])
    options = SearchOptions(k=10, hubness=0.0, words=0.0)
    found = []
    for name in ("", "half", "many", "some", "few", "rare"):
        allowed = np.flatnonzero(names == name) if name else np.arange(len(rows))
        want = exact_scores(rows, query[None], 10, allowed)[0]
        query_text = f"{text} path:/{name}/*" if name else text
        got = np.array([hit.score for hit in index.search(query_text, options=options)])
        equal = len(got) == len(want) and bool(np.allclose(got, want, atol=2e-3))
        took = timed(lambda _, query_text=query_text: index.search(query_text, options=options), repeats)
        found.append({"selectivity": round(len(allowed) / len(rows), 6), "equal_to_brute_force": equal, **took})
        print(found[-1], flush=True)
    return found


def clip_index(folder: Path, count: int) -> Path:
    """An index of an open_clip ViT-B-32 (605 MB of random weights) with ``count`` synthetic vectors, 512-d."""
    if not (folder / "clip").exists():
        model = save_model(folder / "vit-b-32", "ViT-B-32")
        with Index.open(folder / "clip", create=True, encoder=model) as index:
            fill(index, write_matrix(folder / "clip.f16", count, Source()))
            index.search("export the text encoder")
    return folder / "clip"


class Steps:
    """The steps; the command line can name some, so that those that are timed have the machine to themselves."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder: Path = options.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("MMSEARCH_CACHE", str(self.folder / "cache"))
        self.images, texts, self.encoder = flickr8k(self.folder)
        self.queries = texts[np.random.default_rng(1).permutation(len(texts))[: options.queries]]
        self.place = self.folder / "index"

    def rows(self) -> np.ndarray:
        """The vectors, mapped."""
        path, shape = self.folder / "rows.f16", (self.options.vectors, self.images.shape[1])
        if not path.is_file() or path.stat().st_size != 2 * shape[0] * shape[1]:
            replicate(self.images, self.options.vectors, self.options.noise).tofile(path)
        return np.memmap(path, np.float16, "r", shape=shape)

    def fill(self) -> dict[str, Any]:
        """Commits everything; keeps the true answers of the fresh captions."""
        rows = self.rows()
        with Index.open(self.place, create=True, encoder="builtin") as index:
            seconds = fill(index, rows)
            index.search("warm up")  # what the first query has to make
            size = index.status()["bytes"]
        np.save(self.folder / "truth.npy", exact_scores(rows, self.queries, 10))
        return {"fill_s": round(seconds, 1), "bytes_per_vector": round(size / len(rows))}

    def optimize(self) -> dict[str, Any]:
        """`mmsearch optimize`, and what that reports."""
        started = time.perf_counter()
        with Index.open(self.place) as index:
            report = index.optimize(OptimizeOptions(recall=self.options.recall))
        tuned = report.tuned.get("text")
        return {"optimize": {
            "recipe": report.recipe, "reason": report.reason, "seconds": round(time.perf_counter() - started, 1),
            "index_bytes_per_vector": round(report.bytes / self.options.vectors, 1),
            "recall_reported": None if tuned is None else tuned.recall,
            "parameters": None if tuned is None else dict(tuned.parameters),
        }}  # fmt: skip

    def ask(self) -> dict[str, Any]:
        """Recall on fresh captions, latency, filters, cold queries: exactly before `optimize`, through it after."""
        with Index.open(self.place) as index:
            recipe = index.status()["recipe"]
            count = len(self.queries) if recipe != "exact" else 50
            truth = np.load(self.folder / "truth.npy")
            found = {
                "recall_on_fresh_captions": recall(index, self.queries[:count], truth[:count], 10),
                **latency(index, self.queries[:count], 10),
                "filters": filters(index, self.rows(), index.encoder(texts_only=True), self.options.repeats),
            }
        return {"exact" if recipe == "exact" else "optimized": found | {"cold": cold(self.place, 11)}}

    def clip(self) -> dict[str, Any]:
        """An open_clip model over as many vectors of 512 numbers: latency, filters, a cold query; all exactly."""
        place = clip_index(self.folder, self.options.vectors)
        with Index.open(place) as index:
            shape = (self.options.vectors, 512)
            rows = np.memmap(next(place.glob("vectors-*.f16")), np.float16, "r", shape=shape)
            unfiltered = latency(index, Source().texts(30, 0), 10)
            allowed = filters(index, rows, index.encoder(texts_only=True), self.options.repeats)
        return {"open_clip": {**unfiltered, "filters": allowed, "cold": cold(place, 11)}}


def main() -> None:
    """Runs the steps, in this order, and writes ``results/large_index_N.json`` with what all steps so far gave."""
    parser = command_line(__doc__)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--noise", type=float, default=0.6)
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where the index is made, and kept; default: a temporary one")
    parser.add_argument("--steps", nargs="+", default=["fill", "ask", "optimize", "ask", "clip"],
                        choices=("fill", "ask", "optimize", "clip"), help="of a folder that is kept")  # fmt: skip
    options = parser.parse_args()
    temporary = None if options.folder else Path(tempfile.mkdtemp(prefix="mmsearch-large-"))
    options.folder = temporary or options.folder
    try:
        steps, kept = Steps(options), options.folder / "result.json"
        result: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
        result |= {"vectors": options.vectors, "noise": options.noise, "encoder": steps.encoder}
        for name in options.steps:
            result |= getattr(steps, name)()
            kept.write_text(json.dumps(result))
    finally:
        if temporary:
            shutil.rmtree(temporary)
    publish(f"large_index_{options.vectors}", result, options)


if __name__ == "__main__":
    main()
