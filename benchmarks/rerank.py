"""What a reranked question costs, with and without kept image tokens, whether budgets are kept, and what is gained.

``python benchmarks/rerank.py [--images 1000] [--questions 200]`` indexes so many images of Flickr8k's dev split (from
``$MMSEARCH_TEST_DATA``) with the built-in encoder, asks some of their captions, and writes
``benchmarks/results/rerank.json``:

- cost: seconds that the first 50 answers took to be put in order, median and 95th percentile over questions, with
  pictures opened and with kept tokens; bytes an image of these, and what they add to the time of indexing.
- budgets: for each budget the longest time beside it, and how many answers were seen.
- recall: text→image R@1 of these captions before and after.

Where the encoder ships without a reranker, one is made that has seen 128 pictures once: its costs are those of any
weights, and its recall, which says nothing, is left out.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from environment import write_result

from mmsearch.api import Index
from mmsearch.encoders.base import EncoderOptions
from mmsearch.encoders.builtin import SHIPPED_WEIGHTS
from mmsearch.ingest import IngestOptions
from mmsearch.rerankers.builtin import DESCRIPTION, has_reranker
from mmsearch.search import SearchOptions, searcher
from mmsearch.training.pairs import ImageSource, Pairs

BUDGETS = (0.05, 0.1, 0.2, 0.5, 1.0)
DEPTH = 50


class Clock:
    """Notes how long each call of a function took, in seconds."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, list[float]()

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function."""
        start = time.perf_counter()
        try:
            return self.function(*arguments)
        finally:
            self.seconds.append(time.perf_counter() - start)


def captions_of(flickr: Path) -> dict[str, tuple[str, ...]]:
    """Image name to its captions."""
    captions: dict[str, list[str]] = {}
    with (flickr / "captions.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            captions.setdefault(row["image"], []).append(row["caption"])
    return {name: tuple(texts) for name, texts in captions.items()}


def hardly_trained(flickr: Path, captions: dict[str, tuple[str, ...]], output: Path) -> Path:
    """The built-in encoder with a reranker that has seen little."""
    from mmsearch.training.reranker_fit import RerankerOptions, train_reranker

    names = (flickr / "train.txt").read_text().split()[:128]
    pairs = Pairs(tuple(ImageSource(flickr / "images" / n) for n in names), tuple(captions[n][:1] for n in names))
    train_reranker(SHIPPED_WEIGHTS, pairs, pairs, RerankerOptions(epochs=1, dev_queries=5, threads=2), output)
    description = json.loads((output / DESCRIPTION).read_text())
    (output / DESCRIPTION).write_text(json.dumps({**description, "mix": 1.0}))  # with 0, nothing would move
    return output


def ask(index: Index, questions: list[tuple[str, str]], budget: float | None) -> tuple[list[float], list[int], int]:
    """(seconds of reranking, answers seen, questions whose image came first)."""
    clock = Clock(searcher.rerank_answers)
    searcher.rerank_answers = clock
    seen, right = [], 0
    options = SearchOptions(
        k=DEPTH, words=0.0, reranker="builtin", rerank_depth=DEPTH, rerank_budget_s=budget, hubness=0.0
    )
    try:
        for name, caption in questions:
            hits = index.search(caption, options=options, note=lambda _: None)
            seen.append(sum("rerank" in hit.parts for hit in hits))
            right += Path(hits[0].path).name == name
    finally:
        searcher.rerank_answers = clock.function
    return clock.seconds, seen, right


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile, rounded to milliseconds."""
    return {"p50_s": round(float(np.median(seconds)), 3), "p95_s": round(float(np.percentile(seconds, 95)), 3)}


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=200)
    given = parser.parse_args()
    flickr = Path(os.environ["MMSEARCH_TEST_DATA"]) / "flickr8k"
    captions = captions_of(flickr)
    names = (flickr / "dev.txt").read_text().split()[: given.images]
    step = max(1, len(names) // given.questions)
    questions = [(name, captions[name][0]) for name in names[::step]][: given.questions]
    with tempfile.TemporaryDirectory() as folder:
        is_shipped = has_reranker(SHIPPED_WEIGHTS)
        model = "builtin" if is_shipped else str(hardly_trained(flickr, captions, Path(folder) / "model"))
        (Path(folder) / "photos").mkdir()
        for name in names:
            (Path(folder) / "photos" / name).symlink_to(flickr / "images" / name)
        options = EncoderOptions(threads=2)
        with Index.open(Path(folder) / "index", create=True, encoder=model, options=options) as index:
            plain = index.add(Path(folder) / "photos").seconds["total"]
            index.reranker().cost()
            opened, seen, right = ask(index, questions, None)
            budgets = []
            for budget in BUDGETS:
                seconds, depths, _ = ask(index, questions[:40], budget)
                budgets.append(
                    {
                        "budget_s": budget,
                        "longest_s": round(max(seconds), 3),
                        "share": round(max(seconds) / budget, 3),
                        "mean_seen": round(float(np.mean(depths)), 1),
                    }
                )
            filled = index.add(Path(folder) / "photos", options=IngestOptions(keep_tokens="builtin"))
            kept, seen_kept, right_kept = ask(index, questions, None)
            tokens = index.status()["tokens"]
            alone = SearchOptions(k=1, words=0.0, hubness=0.0)
            first = sum(Path(index.search(c, options=alone)[0].path).name == n for n, c in questions)
        with Index.open(Path(folder) / "kept", create=True, encoder=model, options=options) as index:
            at_once = index.add(Path(folder) / "photos", options=IngestOptions(keep_tokens="builtin")).seconds["total"]
    figures: dict[str, Any] = {
        "reranker": "shipped" if is_shipped else "hardly trained",
        "images": len(names),
        "questions": len(questions),
        "depth": DEPTH,
        "opening_pictures": {**spread(opened), "mean_seen": round(float(np.mean(seen)), 1)},
        "kept_tokens": {**spread(kept), "mean_seen": round(float(np.mean(seen_kept)), 1)},
        "bytes_per_image": tokens["bytes_per_image"],
        "indexing_s": {"plain": plain, "with tokens": at_once, "filling in later": filled.seconds["total"]},
        "budgets": budgets,
    }
    if is_shipped:
        figures["recall_at_1"] = {
            "before": round(first / len(questions), 4),
            "after": round(right / len(questions), 4),
            "after, kept tokens": round(right_kept / len(questions), 4),
        }
    print(write_result("rerank", figures).read_text())


if __name__ == "__main__":
    main()
