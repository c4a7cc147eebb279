"""What the site of docs/ makes while it is built: references from the code, plots from the results of benchmarks.

MkDocs calls the functions whose names begin with ``on_``. Nothing that they make is kept in the repository.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer import Context
from typer.main import get_command

import mmsearch
from mmsearch.cli.commands import app
from mmsearch.cli.help_command import WORDS
from mmsearch.filters import filter_help

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ELSEWHERE = {
    "../indexes/README.md": (ROOT / "indexes" / "README.md", "vector_search.md"),
    "../mmsearch/models/encoders/builtin_weights/MODEL_CARD.md": (
        ROOT / "mmsearch" / "models" / "encoders" / "builtin_weights" / "MODEL_CARD.md", "model_card.md",
    ),
}  # fmt: skip
"""Pages that lie beside what they are about: how docs/ links to them, and what they are called in the site."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts pages that nobody has given a place in ``nav`` at its end."""
    placed = str(config.nav)
    pages = sorted(page.relative_to(config.docs_dir).as_posix() for page in Path(config.docs_dir).rglob("*.md"))
    if others := [page for page in pages if f"'{page}'" not in placed]:
        config.nav = [*(config.nav or []), {"More": others}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and pictures that are made."""
    made: dict[str, str | bytes] = {"reference/cli.md": command_line(), "reference/python.md": python()}
    pictures = dict(plots())
    shown = [f"![{title}](plots/{name})" for name, (title, _) in pictures.items()]
    where = "Drawn from `benchmarks/results/` while this site is built; the tables are in [Measured](measured.md)."
    made["plots.md"] = "\n\n".join(["# Plots", where, *shown])
    made.update({f"plots/{name}": data for name, (_, data) in pictures.items()})
    for source, name in ELSEWHERE.values():
        made[name] = re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", source.read_text(encoding="utf-8"))
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts the table of filters into its page, and links to what lies elsewhere to its page in the site."""
    for link, (_, name) in ELSEWHERE.items():
        markdown = markdown.replace(f"({link})", f"({name})")
    return markdown.replace("<!-- the query language -->", language())


def language() -> str:
    """The query language and its filters, as tables."""
    words = "\n".join(f"| {_code(shown)} | {meaning.replace('|', chr(92) + '|')} |" for shown, meaning in WORDS)
    filters = "\n".join(f"| `{key}:` | {_code(example)} | {meaning} |" for key, example, meaning in filter_help())
    return f"| written | means |\n|---|---|\n{words}\n\n| filter | example | keeps |\n|---|---|---|\n{filters}"


def _code(text: str) -> str:
    return f"`{text}`" if "`" not in text else f"`` {text} ``"


# References


def command_line() -> str:
    """All commands with their options."""
    root: Any = get_command(app)
    parts = ["# Command line", "Made from the program itself. `mmsearch help COMMAND` says the same on the terminal."]
    for words, command, context in _commands(root, Context(root, info_name="mmsearch")):
        text = re.sub(r"\n\s*\n", "\n\n", (command.help or "").strip())
        usage = " ".join(["mmsearch", *words, *command.collect_usage_pieces(context)])
        parts += [f"## mmsearch {' '.join(words)}", text, f"```text\n{usage}\n```"]
        rows = [record for param in command.get_params(context) if (record := _record(param, context))]
        if rows:
            parts.append("| | |\n|---|---|\n" + "\n".join(f"| `{name}` | {meaning} |" for name, meaning in rows))
    return "\n\n".join(parts) + "\n"


def _record(param: Any, context: Any) -> tuple[str, str] | None:
    record = param.get_help_record(context)
    if record is None:
        return None
    name, meaning = (part.replace("|", "\\|").replace("\n", " ") for part in record)
    return name, re.sub(r"([*_<>\[\]])", r"\\\1", meaning)


def _commands(group: Any, context: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    for name, command in group.commands.items():
        inner = Context(command, info_name=name, parent=context)
        yield (*words, name), command, inner
        if hasattr(command, "commands"):
            yield from _commands(command, inner, (*words, name))


def python() -> str:
    """All public names, as mkdocstrings reads them from their docstrings."""
    homes: dict[str, str] = mmsearch._HOMES
    parts = ["# Python", "Made from the docstrings. A tour with examples that run: [Python](../python.md)."]
    return "\n\n".join([*parts, *(f"::: {home}.{name}" for name, home in homes.items())]) + "\n"


# Plots


def plots() -> Iterator[tuple[str, tuple[str, bytes]]]:
    """The name of each picture, its title, and its bytes."""
    import matplotlib

    matplotlib.use("svg")
    for draw in (_recall_against_time, _reading_against_peers, _languages, _reliability):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        title = draw(figure.add_subplot())
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        yield f"{draw.__name__.strip('_')}.svg", (title, file.getvalue())


def _result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _recall_against_time(axes: Any) -> str:
    rows = _result("vector_search_flickr8k_1000000")["rows"]
    for name in sorted({row["name"] for row in rows}):
        best: list[tuple[float, float]] = []  # settings that no faster one is as good as
        for ms, recall in sorted((row["p50_ms"], row["recall_text"]) for row in rows if row["name"] == name):
            if not best or recall > best[-1][1]:
                best.append((ms, recall))
        axes.plot(*zip(*best, strict=True), "o-", markersize=3, linewidth=1, label=name)
    title = "Vector search, 1,000,000 vectors of photos: best recall of text queries by time"
    axes.set(xscale="log", xlabel="median milliseconds a query", ylabel="recall", title=title)
    axes.legend(fontsize="x-small", ncols=2)
    return title


def _reading_against_peers(axes: Any) -> str:
    sets = _result("ingest_peers")["sets"]
    names = list(next(iter(sets.values()))["images_per_s"])
    for number, name in enumerate(names):
        places = [place + 0.25 * number for place in range(len(sets))]
        bars = axes.bar(places, [one["images_per_s"][name] for one in sets.values()], 0.25, label=name)
        axes.bar_label(bars, fontsize="small")
    title = "Indexing beside a fast encoder: photos a second (benchmarks/ingest_peers.py)"
    axes.set(xticks=[place + 0.25 for place in range(len(sets))], xticklabels=list(sets), title=title)
    axes.legend()
    return title


def _languages(axes: Any) -> str:
    captions = _result("languages")["captions"]
    names = list(captions)[::-1]
    axes.barh(names, [captions[name]["R@10"] for name in names])
    title = "Captions that find their photo among the first ten (Flickr8k dev)"
    axes.set(xlabel="recall@10, percent", title=title)
    return title


def _reliability(axes: Any) -> str:
    for name, one in _result("relevance")["reliability"].items():
        bins = [row for row in one["bins"] if row]
        said = [row.get("said", row.get("relevance")) for row in bins]
        right = [row.get("right", row.get("share")) for row in bins]
        if None not in said and None not in right:
            axes.plot(said, right, "o-", markersize=3, label=name)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle=":")
    title = "Relevance that is shown, against the share that is right (benchmarks/relevance.py)"
    axes.set(xlabel="relevance", ylabel="share of hits that are right", title=title)
    axes.legend(fontsize="small")
    return title
