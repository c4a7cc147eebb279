"""From the results of vector_search.py: the plots, the table of indexes/README.md, the figures in the recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]

INDEXES = Path(__file__).resolve().parent.parent / "indexes"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
MARK = "# Measured by benchmarks/vector_search.py (written by its --tables).\n"


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
        f'bytes_per_vector = {row["bytes_per_vector"]:.1f}\nsource = "benchmarks/vector_search.py, synthetic.py"\n'
        f"parameters = {{ {setting} }}\n"
    )
