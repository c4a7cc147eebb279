"""What a reranked question costs, with and without kept image tokens, whether budgets are kept, and what is gained.

``python benchmarks/rerank.py [--images 1000] [--questions 200]`` indexes so many images of Flickr8k's dev split (from
``$MMSEARCH_TEST_DATA``) with the built-in encoder and the reranker that ships with it, asks some of their captions, and
writes ``benchmarks/results/rerank.json`` (``--only costs``) and ``rerank_recall.json`` (``--only recall``):

- cost: seconds that the first 50 answers took to be put in order, median and 95th percentile over questions, with
  pictures opened and with kept tokens; bytes an image of these, and what they add to the time of indexing.
- budgets: for each budget the longest time beside it, and how many answers were seen.
- recall: text→image R@1, 5 and 10 of all captions of these images before and after, by cosines alone and with the
  correction for hubness; and what R@1 gains, with a 95 % interval over images (bootstrap, 2,000
  draws). Tokens are kept.
- objects: mean average precision of "a photo of a NAME." on ``photos/`` before and after, when all are reranked.
"""

from __future__ import annotations

import csv
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common.environment import data_folder
from common.output import command_line, publish
from common.timing import Clock

from mmsearch.api import Index
from mmsearch.ingest import IngestOptions
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.query import SearchOptions, searcher

BUDGETS = (0.05, 0.1, 0.2, 0.5, 1.0)
DEPTH = 50


def captions_of(flickr: Path) -> dict[str, tuple[str, ...]]:
    """Image name to its captions."""
    captions: dict[str, list[str]] = {}
    with (flickr / "captions.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            captions.setdefault(row["image"], []).append(row["caption"])
    return {name: tuple(texts) for name, texts in captions.items()}


def ask(index: Index, questions: list[tuple[str, str]], budget: float | None) -> tuple[list[float], list[int]]:
    """(seconds of reranking, answers seen) of each question."""
    clock = Clock(searcher.rerank_candidates)
    searcher.rerank_candidates = clock
    seen = []
    options = SearchOptions(
        k=DEPTH, words=0.0, reranker="builtin", rerank_depth=DEPTH, rerank_budget_s=budget, hubness=0.0
    )
    try:
        for _, caption in questions:
            hits = index.search(caption, options=options, note=lambda _: None)
            seen.append(sum("rerank" in hit.parts for hit in hits))
    finally:
        searcher.rerank_candidates = clock.function
    return clock.each, seen


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile, rounded to milliseconds."""
    return {"p50_s": round(float(np.median(seconds)), 3), "p95_s": round(float(np.percentile(seconds, 95)), 3)}


def places(index: Index, questions: list[tuple[str, str]], options: SearchOptions) -> np.ndarray:
    """Where the right image comes, 0 for the first place; ``DEPTH`` where it is not among the answers."""
    found = []
    for name, caption in questions:
        paths = [Path(hit.path).name for hit in index.search(caption, options=options, note=lambda _: None)]
        found.append(paths.index(name) if name in paths else DEPTH)
    return np.array(found)


def recall(index: Index, names: list[str], captions: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """R@k of all captions before and after, and the gain in R@1."""
    questions = [(name, caption) for name in names for caption in captions[name]]
    owner = np.repeat(np.arange(len(names)), [len(captions[name]) for name in names])
    figures: dict[str, Any] = {"captions": len(questions)}
    for kind, hubness in (("cosines", 0.0), ("corrected for hubness", SearchOptions().hubness)):
        options = SearchOptions(k=DEPTH, words=0.0, hubness=hubness)
        before = places(index, questions, options)
        after = places(index, questions, replace(options, reranker="builtin", rerank_depth=DEPTH))
        gain = np.bincount(owner, (after == 0).astype(float) - (before == 0)) * len(names) / len(questions)
        draws = np.random.default_rng(0).integers(0, len(names), (2000, len(names)))
        figures[kind] = {
            "before": {f"R@{k}": round(100 * float((before < k).mean()), 2) for k in (1, 5, 10)},
            "after": {f"R@{k}": round(100 * float((after < k).mean()), 2) for k in (1, 5, 10)},
            "gain in R@1": round(100 * float(gain.mean()), 2),
            "95 %": [round(100 * float(x), 2) for x in np.percentile(gain[draws].mean(1), [2.5, 97.5])],
        }
    return figures


def objects(photos: Path, folder: Path) -> dict[str, float]:
    """mAP over object names before and after."""
    labels = [json.loads(line) for line in (photos / "labels.jsonl").read_text().splitlines()]
    shows = {Path(label["image"]).name: set(label["objects"]) for label in labels}
    names = sorted(set().union(*shows.values()))
    figures = {}
    with Index.open(folder, create=True, encoder="builtin", options=EncoderOptions(threads=2)) as index:
        index.add(photos / "images", options=IngestOptions(keep_tokens="builtin"))
        for kind, reranker in (("before", None), ("after", "builtin")):
            options = SearchOptions(k=len(shows), words=0.0, hubness=0.0, reranker=reranker, rerank_depth=len(shows))
            precisions = []
            for name in names:
                hits = index.search(f"a photo of a {name}.", options=options)
                right = np.array([name in shows[Path(hit.path).name] for hit in hits])
                precision = np.cumsum(right) / np.arange(1, len(right) + 1)
                precisions.append(precision[right].sum() / sum(name in found for found in shows.values()))
            figures[kind] = round(float(np.mean(precisions)), 4)
    return figures


def costs(index: Index, folder: Path, names: list[str], questions: list[tuple[str, str]]) -> dict[str, Any]:
    """Times of an empty index that gets the photos in ``folder``, then their tokens."""
    plain = index.add(folder / "photos").seconds["total"]
    index.reranker().cost()
    opened, seen = ask(index, questions, None)
    budgets = []
    for budget in BUDGETS:
        seconds, depths = ask(index, questions[:40], budget)
        budgets.append(
            {
                "budget_s": budget,
                "longest_s": round(max(seconds), 3),
                "share": round(max(seconds) / budget, 3),
                "mean_seen": round(float(np.mean(depths)), 1),
            }
        )
    filled = index.add(folder / "photos", options=IngestOptions(keep_tokens="builtin"))
    kept, seen_kept = ask(index, questions, None)
    with Index.open(folder / "kept", create=True, encoder="builtin", options=EncoderOptions(threads=2)) as other:
        at_once = other.add(folder / "photos", options=IngestOptions(keep_tokens="builtin")).seconds["total"]
    return {
        "images": len(names),
        "questions": len(questions),
        "depth": DEPTH,
        "opening_pictures": {**spread(opened), "mean_seen": round(float(np.mean(seen)), 1)},
        "kept_tokens": {**spread(kept), "mean_seen": round(float(np.mean(seen_kept)), 1)},
        "bytes_per_image": index.status()["tokens"]["bytes_per_image"],
        "indexing_s": {"plain": plain, "with tokens": at_once, "filling in later": filled.seconds["total"]},
        "budgets": budgets,
    }


def main() -> None:
    """Measures and writes the result."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--only", choices=["costs", "recall"])
    given = parser.parse_args()
    flickr = data_folder("flickr8k")
    captions = captions_of(flickr)
    names = (flickr / "dev.txt").read_text().split()[: given.images]
    step = max(1, len(names) // given.questions)
    questions = [(name, captions[name][0]) for name in names[::step]][: given.questions]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "photos").mkdir()
        for name in names:
            (Path(folder) / "photos" / name).symlink_to(flickr / "images" / name)
        options = EncoderOptions(threads=2)
        with Index.open(Path(folder) / "index", create=True, encoder="builtin", options=options) as index:
            if given.only != "recall":
                publish("rerank", costs(index, Path(folder), names, questions), given)
            if given.only != "costs":
                index.add(Path(folder) / "photos", options=IngestOptions(keep_tokens="builtin"))
                found = recall(index, names, captions)
                found["objects mAP"] = objects(flickr.parent / "photos", Path(folder) / "objects")
                publish("rerank_recall", found, given)


if __name__ == "__main__":
    main()
