"""Recall against latency of every way to search, on image and on text queries, side by side.

    python benchmarks/vector_search.py --vectors 100000
    python benchmarks/vector_search.py --vectors 1000000 --only exact pq_scan ivf_pq rclip
    MMSEARCH_TEST_DATA=… python benchmarks/vector_search.py --data flickr8k --vectors 100000
    python benchmarks/vector_search.py --tables        (from the results: plots, indexes/README.md, recipes)

Every contender (common/contenders.py) runs in a process of its own, over the same vector file, and gets one query at a
time on one thread. ``--data synthetic``: common/vectors.py says how they are made. ``--data flickr8k``: the vectors of
the Flickr8k images through the built-in encoder, each copied with a random step; queries are the captions of the dev
split, and images after another random step. Recall is recall@k against exact search. Resident memory
is that of the process while it searches, its map of the vector file included; peak memory includes building.

``--clock cpu`` counts processor time instead of wall time, for queries and for building (where it is that of all
threads together): on a machine that others use as well, it is what can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import CLONE
from common.contenders import OURS, PEERS, Ours, Search
from common.environment import Memory, version_of
from common.output import command_line, write_result
from common.vectors import DATA, FOLDER, mean_recall, prepare

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SECONDS = 4.0
"""What the queries of one kind may take at one setting; with slow contenders fewer are searched for, at least 3."""
Row = dict[str, Any]

INDEXES = CLONE / "indexes"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
MARK = "# Measured by benchmarks/vector_search.py (written by its --tables).\n"


def measure(name: str, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Build one contender and yield a row of figures for each of its settings and each k."""
    n, folder, clock = options.vectors, options.folder, CLOCKS[options.clock]
    data = np.load(folder / f"{options.data}-{n}.npz")
    matrix = np.memmap(folder / str(data["matrix"]), dtype="<f2", mode="r").reshape(n, -1)
    start = clock()
    contender = (
        Ours(matrix, folder, options.threads, name) if name in OURS else PEERS[name](matrix, folder, options.threads)
    )
    built = clock() - start
    for k in options.k:
        done: list[tuple[dict[str, int], float]] = []
        for setting in contender.settings:
            if any(_is_more(setting, other) and recall >= 0.9995 for other, recall in done):
                continue  # a cheaper setting found all there is
            search = contender.search(k, **setting)
            slow = clock()
            search(data["texts"][:1])
            slow = clock() - slow
            count = min(len(data["texts"]), max(3, int(SECONDS / max(slow, 1e-6))))
            took, recall = {}, {}
            for kind in ("text", "image"):
                took[kind], found = _search(search, data[f"{kind}s"][:count], clock)
                recall[kind] = mean_recall(found, data[f"{kind}_{k}"][:count])
            done.append((setting, recall["text"]))
            p50, p95, p99 = np.percentile(took["text"], [50, 95, 99])
            now = Memory.now()
            yield {
                "name": name, "vectors": n, "dim": matrix.shape[1], "k": k, "setting": setting, "queries": count,
                "recall_text": recall["text"], "recall_image": recall["image"],
                "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "qps": 1000 / float(np.mean(took["text"])),
                "image_p50_ms": float(np.median(took["image"])),
                "build_s": built, "bytes_per_vector": contender.bytes_per_vector,
                "resident_mb": now.resident, "allocated_mb": now.allocated, "peak_mb": Memory.peak(),
                "clock": options.clock, "load": round(os.getloadavg()[0], 1),
            }  # fmt: skip


def _is_more(setting: dict[str, int], other: dict[str, int]) -> bool:
    return all(setting[key] >= other[key] for key in setting)


def _search(search: Search, queries: np.ndarray, clock: object) -> tuple[list[float], list[np.ndarray]]:
    took, found = [], []
    for i in range(len(queries)):
        start = clock()  # type: ignore[operator]
        rows = search(queries[i : i + 1])
        took.append((clock() - start) * 1000)  # type: ignore[operator]
        found.append(rows)
    return took, found


def facts(data: str) -> dict[str, object]:
    """What is said beside the machine: its vector instructions, the peers' versions, the data."""
    peers = {name: known for name in ("hnswlib", "usearch") if (known := version_of(name))}
    return {"simd": widest_vectors(), "peers": peers, "data": DATA[data]}


def widest_vectors() -> str | None:
    """The widest vector instructions of this processor, which decide how fast codes are scanned; Linux only."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return None
    return next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), None)


# Tables and plots


def write_all(results: Path) -> None:
    """Write everything that is derived from ``results``/vector_search_*.json."""
    files = sorted(results.glob("vector_search_*_*.json"), key=_order)
    tables = []
    for path in files:
        result = json.loads(path.read_text())
        for row in result["rows"]:  # results from before image queries were timed apart
            row.setdefault("image_p50_ms", row["p50_ms"])
        for k in sorted({row["k"] for row in result["rows"]}):
            tables.append(table([row for row in result["rows"] if row["k"] == k], result["environment"]))
        plot(result["rows"], result["environment"]["data"], path.with_suffix(".png"))
    readme = INDEXES / "README.md"
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text:
        text += f"\n{BEGIN}\n{END}\n"
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{head}{BEGIN}\n" + "\n\n".join(tables) + f"\n{END}{tail}", encoding="utf-8")
    write_recipes([json.loads(path.read_text())["rows"] for path in files if _order(path)[0] == "synthetic"])


def _order(path: Path) -> tuple[str, int]:
    """Synthetic data last, small sizes first: (data, vectors) of a file of results, from its name."""
    data, vectors = path.stem.split("_")[2:]
    return data, int(vectors)


def cheapest(rows: list[Row], name: str, recall: float) -> Row | None:
    """The fastest setting of ``name`` that finds ``recall`` of what text queries should find."""
    able = [r for r in rows if r["name"] == name and r["recall_text"] >= recall]
    return min(able, key=lambda r: r["p50_ms"], default=None)


def table(rows: list[Row], environment: dict[str, Any]) -> str:
    """One Markdown table: each contender at its fastest setting for 0.95 and 0.99 recall on text queries."""
    n, k, dim = rows[0]["vectors"], rows[0]["k"], rows[0]["dim"]
    simd = f" with {environment['simd']}" if environment.get("simd") else ""
    lines = [
        f"### {n:,} × {dim}, recall@{k}: {environment['data'].split(' (')[0]}",
        "",
        f"{environment['cpu']}{simd}, {environment['cores']} cores; one query at a time, one thread; "
        f"{environment['date']}. {clocks(rows)} Each line is the fastest setting that reaches the recall on *text* "
        f"queries; build time is that of all threads together. {environment.get('note', '')}".rstrip(),
        "",
        "| | text recall | image recall | setting | p50 ms | p95 ms | p99 ms "
        "| QPS | build s | bytes/vector | resident MB | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(r["name"] for r in rows))
    for target in (0.95, 0.99):
        chosen = [(name, cheapest(rows, name, target)) for name in names]
        found = sorted(((name, r) for name, r in chosen if r), key=lambda pair: pair[1]["p50_ms"])
        lines.append(f"| **≥ {target}** | | | | | | | | | | | |")
        for name, r in found:
            setting = ", ".join(f"{key} {value}" for key, value in r["setting"].items()) or "–"
            lines.append(
                f"| {name} | {r['recall_text']:.3f} | {r['recall_image']:.3f} | {setting} | {r['p50_ms']:.2f} | "
                f"{r['p95_ms']:.2f} | {r['p99_ms']:.2f} | {r['qps']:,.0f} | {r['build_s']:.1f} | "
                f"{r['bytes_per_vector']:.0f} | {r['resident_mb']:.0f} | {r['peak_mb']:.0f} |"
            )
        missed = [name for name, r in chosen if r is None]
        if missed:
            lines.append(f"| not reached: {', '.join(missed)} | | | | | | | | | | | |")
    return "\n".join(lines)


def clocks(rows: list[Row]) -> str:
    """A sentence on how time was taken: where others used the machine too, processor time is what can be compared."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    by_processor = list(dict.fromkeys(row["name"] for row in rows if row.get("clock") == "cpu"))
    if not by_processor:
        return "Times are wall time."
    if len(by_processor) == len(names):
        return "Times are processor time, as others used the machine too."
    return (
        f"Times of {', '.join(by_processor)} are processor time, as others used the machine too; the others wall time."
    )


def plot(rows: list[Row], title: str, path: Path) -> None:
    """Speed (of the median query) over recall, text and image queries side by side: up and right is better."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ks = sorted({row["k"] for row in rows})
    figure, axes = plt.subplots(
        len(ks), 2, figsize=(13, 5.2 * len(ks)), sharey=True, squeeze=False, layout="constrained"
    )
    names = list(dict.fromkeys(row["name"] for row in rows))
    for k, line in zip(ks, axes, strict=True):
        for kind, ax in zip(("text", "image"), line, strict=True):
            ms = "p50_ms" if kind == "text" else "image_p50_ms"
            for number, name in enumerate(names):
                front = pareto([r for r in rows if (r["name"], r["k"]) == (name, k)], f"recall_{kind}", ms)
                ax.plot(
                    [1 - min(r[f"recall_{kind}"], 0.9995) for r in front], [1000 / r[ms] for r in front],
                    marker="osD^v"[number % 5], markersize=4, linewidth=1.2, label=name,
                    color=plt.get_cmap("tab20")(number * 2 % 20 + number // 10),
                )  # fmt: skip
            ticks = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
            ax.set(xscale="log", yscale="log", xlim=(0.5, 4e-4), xlabel=f"recall@{k}", title=f"{kind} queries")
            ax.set_xticks([1 - t for t in ticks], [f"{t:g}" for t in ticks])
            ax.minorticks_off()
            ax.grid(alpha=0.3)
        line[0].set_ylabel("queries a second of the median query, one thread")
    axes[0][1].legend(fontsize=8)
    figure.suptitle(f"{rows[0]['vectors']:,} × {rows[0]['dim']}, {title}")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def pareto(rows: list[Row], recall: str, ms: str) -> list[Row]:
    """The settings that no other beats in both recall and speed, by recall."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda r: (-r[recall], r[ms])):
        if not front or row[ms] < front[-1][ms]:
            front.append(row)
    return front[::-1]


def write_recipes(results: list[list[Row]]) -> None:
    """Put the figures at 0.99 text recall (else the best reached) at the end of each recipe's file."""
    for path in sorted(INDEXES.glob("*.toml")):
        entries = []
        for rows in results:
            own = [r for r in rows if r["name"] == path.stem and r["k"] == 10]
            if own:
                entries.append(_entry(cheapest(own, path.stem, 0.99) or max(own, key=lambda r: r["recall_text"])))
        if entries:
            head = path.read_text(encoding="utf-8").split(MARK)[0].rstrip("\n")
            path.write_text(f"{head}\n\n{MARK}" + "\n".join(entries), encoding="utf-8")


def _entry(row: Row) -> str:
    setting = ", ".join(f"{key} = {value}" for key, value in row["setting"].items())
    return (
        f"[[measured]]\nvectors = {row['vectors']}\ndim = {row['dim']}\nrecall_text = {row['recall_text']:.4f}\n"
        f"recall_image = {row['recall_image']:.4f}\np50_ms = {row['p50_ms']:.3f}\nbuild_s = {row['build_s']:.1f}\n"
        f'bytes_per_vector = {row["bytes_per_vector"]:.1f}\nsource = "benchmarks/vector_search.py, common/vectors.py"\n'
        f"parameters = {{ {setting} }}\n"
    )


# The run


def main() -> None:
    """Run the contenders, each in its own process, and add their rows to the results of this size."""
    parser = command_line(__doc__)
    parser.add_argument("--data", default="synthetic", choices=DATA)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for building")
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--only", nargs="+", default=[*PEERS, *OURS], choices=[*PEERS, *OURS])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--tables", action="store_true", help="only write plots and tables from the results")
    parser.add_argument("--note", default="", help="a sentence that the tables say beside the figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tables:
        return write_all(options.results)
    if options.child:
        for row in measure(options.child, options):
            print(json.dumps(row), flush=True)
        return None
    prepare(options.data, options.vectors, options.queries, options.k, options.folder)
    result = f"vector_search_{options.data}_{options.vectors}"
    path = options.results / f"{result}.json"
    old = json.loads(path.read_text())["rows"] if path.is_file() else []
    rows = [row for row in old if row["name"] not in options.only]
    for name in options.only:
        print(f"{name} …", flush=True)
        command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{name} ended with {done.returncode}; its settings up to there are kept", flush=True)
        rows += [json.loads(line) for line in done.stdout.splitlines()]
        if not options.no_write:
            write_result(result, {"rows": rows}, options.results, note=options.note, **facts(options.data))
    return None


if __name__ == "__main__":
    main()
