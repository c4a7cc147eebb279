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
    files = sorted(results.glob("vector_search_*_k*.json"), key=_size)
    tables = []
    for path in files:
        result = json.loads(path.read_text())
        tables.append(table(result["rows"], result["environment"]))
        plot(result["rows"], path.with_suffix(".png"))
    readme = INDEXES / "README.md"
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text:
        text += f"\n{BEGIN}\n{END}\n"
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    readme.write_text(f"{head}{BEGIN}\n" + "\n\n".join(tables) + f"\n{END}{tail}", encoding="utf-8")
    write_recipes([json.loads(path.read_text())["rows"] for path in files])


def _size(path: Path) -> list[int]:
    """(vectors, k) of a file of results, from its name."""
    return [int(part.strip("k")) for part in path.stem.split("_")[2:]]


def cheapest(rows: list[Row], name: str, recall: float) -> Row | None:
    """The fastest setting of ``name`` that finds ``recall`` of what text queries should find."""
    able = [r for r in rows if r["name"] == name and r["recall_text"] >= recall]
    return min(able, key=lambda r: r["p50_ms"], default=None)


def table(rows: list[Row], environment: dict[str, Any]) -> str:
    """One Markdown table: each contender at its fastest setting for 0.95 and 0.99 recall on text queries."""
    n, k, dim = rows[0]["vectors"], rows[0]["k"], rows[0]["dim"]
    lines = [
        f"### {n:,} × {dim}, recall@{k}",
        "",
        f"{environment['cpu']}, {environment['cores']} cores; one query at a time, one thread; "
        f"{environment['data']}; {environment['date']}. "
        "Each line is the fastest setting that reaches the recall on *text* queries.",
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


def plot(rows: list[Row], path: Path) -> None:
    """Speed (of the median query) over recall, text and image queries side by side: up and right is better."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(13, 5.5), sharey=True, layout="constrained")
    for kind, ax in zip(("text", "image"), axes, strict=True):
        for number, name in enumerate(dict.fromkeys(r["name"] for r in rows)):
            front = pareto([r for r in rows if r["name"] == name], f"recall_{kind}")
            ax.plot(
                [1 - min(r[f"recall_{kind}"], 0.9995) for r in front], [1000 / r["p50_ms"] for r in front],
                marker="osD^v"[number % 5], markersize=4, linewidth=1.2, label=name,
                color=plt.get_cmap("tab20")(number * 2 % 20 + number // 10),
            )  # fmt: skip
        ticks = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
        ax.set(xscale="log", yscale="log", xlim=(0.5, 4e-4), xlabel=f"recall@{rows[0]['k']}", title=f"{kind} queries")
        ax.set_xticks([1 - t for t in ticks], [f"{t:g}" for t in ticks])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("1000 / median ms, one thread")
    axes[1].legend(fontsize=8)
    figure.suptitle(f"{rows[0]['vectors']:,} × {rows[0]['dim']}, synthetic vectors with a modality gap")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def pareto(rows: list[Row], recall: str) -> list[Row]:
    """The settings that no other beats in both recall and speed, by recall."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda r: (-r[recall], r["p50_ms"])):
        if not front or row["p50_ms"] < front[-1]["p50_ms"]:
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
