"""Rankings to figures: one number a question, then means with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmsearch.core.errors import UsageError
from mmsearch.evaluate.matching import PICTURES, Gallery, Names
from mmsearch.evaluate.metrics import (
    Interval,
    average_precision,
    bootstrap_interval,
    first_relevant_rank,
    hit_at_k,
    median_rank,
    ndcg,
    recall_at_k,
    reciprocal_rank,
    two_way_recall,
)
from mmsearch.evaluate.options import EvaluationOptions as EvaluationOptions
from mmsearch.evaluate.reading import EvaluationSet, JudgedQuestion
from mmsearch.evaluate.stages import KS, Placed, Stage, index_loss, rerank_gain
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.query.calibrate.calibration import fit_scale, load_calibration
from mmsearch.query.calibrate.fit import hubness_of_passages
from mmsearch.query.context import of_kinds
from mmsearch.store.base import Store

DEFINITIONS = {
    "hit@k": "share of questions with at least one right answer among the first k (CLIP_benchmark: recall@k)",
    "recall@k": "share of the right answers that are among the first k, mean over questions",
    "MRR": "mean of 1 / place of the first right answer; 0 beyond the depth",
    "mAP": "mean over questions of the average precision, over all right answers, to the depth",
    "nDCG@10": "discounted gain of the first 10 over that of the best order, gain = grade",
    "median rank": "median place of the first right answer",
    "R@k text→image": "hit@k of captions, all images of the index being the gallery",
    "R@k image→text": "hit@k of images, all captions of the file being the gallery",
    "R@k image→text, corrected": "the same with the hubness correction, as searches for texts by an image have it",
}


@dataclass(frozen=True)
class Evaluation:
    """The figures of one run. ``per_question``: for each measure, one number a question in the order of ``ids``.

    ``left_out``: questions without a right answer in the gallery. ``two_way``: R@k in percent of captions, both
    directions, by cosines alone, and where something is known of it also corrected for hubness. ``index_recall``: share
    of the ten exactly nearest rows that the vector index found; 1 where search is exact.
    """

    ids: tuple[str, ...]
    gallery: int
    left_out: int
    per_question: dict[str, list[float]]
    figures: dict[str, Interval]
    two_way: dict[str, float] = field(default_factory=dict)
    index_recall: float | None = None
    recipe: str = "exact"
    index_loss: Stage | None = None
    rerank_gain: Stage | None = None


def evaluate(
    store: Store,
    encoder: Encoder,
    judged: EvaluationSet,
    options: EvaluationOptions = EvaluationOptions(),
    rank_documents: Callable[[str, bool], Sequence[int]] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Ranks all images and videos of an index for every question and measures the rankings.

    ``figures`` are the model's, by exact search; what a vector index loses of them and what a reranker adds stand
    apart. ``rank_documents`` runs one question as an ordinary search, without or with a reranker, and returns ids of
    documents; ``progress`` is called with the number of these questions that are done, and of all.

    Raises:
        UsageError: none of the right answers is in the index.
    """
    gallery = Gallery.of(store)
    names = Names(gallery)
    located = [(one, names.places(one.relevant)) for one in judged.questions]
    placed = [(one, places) for one, places in located if places]
    if not placed:
        raise UsageError("none of the right answers is in the index: index the files that the set names first")
    texts = encoder.encode_queries([one.text for one, _ in placed])
    images = store.vectors(gallery.segments)
    per_question = _measured(store, gallery, texts, images, placed, options)
    recall, recipe = _index_recall(store, gallery, texts, images)
    gain = None if rank_documents is None else _rerank_gain(gallery, placed, rank_documents, options, progress)
    return Evaluation(
        ids=tuple(one.id for one, _ in placed),
        gallery=len(gallery),
        left_out=len(located) - len(placed),
        per_question=per_question,
        figures=_figures(per_question, options.samples),
        two_way=_two_way(encoder, gallery, texts, images, placed, options.alpha) if judged.kind == "captions" else {},
        index_recall=recall,
        recipe=recipe,
        index_loss=index_loss(store, gallery, texts, images, placed, options.alpha),
        rerank_gain=gain,
    )


def _rerank_gain(
    gallery: Gallery, placed: Placed, rank_documents: Callable[[str, bool], Sequence[int]], options: EvaluationOptions,
    progress: Callable[[int, int], None],
) -> Stage:  # fmt: skip
    place_of = {document: place for place, document in enumerate(gallery.documents)}

    def rank(text: str, with_reranker: bool) -> list[int]:
        return [place_of[document] for document in rank_documents(text, with_reranker) if document in place_of]

    return rerank_gain(placed, rank, options.rerank_questions, progress)


def captions_of_index(store: Store) -> EvaluationSet:
    """The captions that lie beside the indexed files, each a query for its file."""
    gallery = Gallery.of(store)
    questions = tuple(
        JudgedQuestion(path, caption, {path: 1.0})
        for path, caption in zip(gallery.names, gallery.captions, strict=True)
        if caption
    )
    if not questions:
        raise UsageError(f"no file of the index {store.place} has a caption beside it: name a file of captions")
    return EvaluationSet("captions", questions)


def _measured(
    store: Store, gallery: Gallery, texts: FloatArray, images: FloatArray,
    placed: Sequence[tuple[JudgedQuestion, dict[str, int]]], options: EvaluationOptions,
) -> dict[str, list[float]]:  # fmt: skip
    names = [*(f"hit@{k}" for k in KS), *(f"recall@{k}" for k in KS), "MRR", "mAP", "nDCG@10", "rank"]
    values: dict[str, list[float]] = {name: [] for name in names}
    calibration = load_calibration(store)
    hubness, alphas = calibration.hubness_of(gallery.segments), options.alpha * calibration.weights(texts)
    for start in range(0, len(placed), options.batch):
        part = slice(start, start + options.batch)
        scores = gallery.best_of_documents(texts[part] @ images.T - alphas[part, None] * hubness)
        for (question, places), row in zip(placed[start : start + options.batch], scores, strict=True):
            ranked = _ranking(row, options.depth)
            relevant = set(places.values())
            for k in KS:
                values[f"hit@{k}"].append(hit_at_k(ranked, relevant, k))
                values[f"recall@{k}"].append(recall_at_k(ranked, relevant, k))
            values["MRR"].append(reciprocal_rank(ranked, relevant))
            values["mAP"].append(average_precision(ranked, relevant))
            values["nDCG@10"].append(ndcg(ranked, {place: question.relevant[n] for n, place in places.items()}, 10))
            values["rank"].append(float(first_relevant_rank(ranked, relevant) or math.inf))
    return values


def _ranking(scores: FloatArray, depth: int) -> list[int]:
    """Places of the ``depth`` best scores, best first, ties by place."""
    if len(scores) > 4 * depth:
        bound = np.partition(scores, -depth)[-depth]
        places = np.flatnonzero(scores >= bound)
        places = places[np.argsort(-scores[places], kind="stable")]
    else:
        places = np.argsort(-scores, kind="stable")
    ranked: list[int] = places[:depth].tolist()
    return ranked


def _figures(per_question: dict[str, list[float]], samples: int) -> dict[str, Interval]:
    figures = {
        name: bootstrap_interval(values, samples=samples) for name, values in per_question.items() if name != "rank"
    }
    ranks = bootstrap_interval(per_question["rank"], lambda rows: np.median(rows, axis=1), samples=samples)
    figures["median rank"] = Interval(median_rank(per_question["rank"]), ranks.low, ranks.high, ranks.level)
    return figures


def _two_way(
    encoder: Encoder, gallery: Gallery, texts: FloatArray, images: FloatArray, placed: Placed, alpha: float
) -> dict[str, float]:
    """R@k both ways, in percent; of a video, the first frame stands for it."""
    heads, owners = images[gallery.starts], [list(places.values()) for _, places in placed]
    recalls = two_way_recall(texts, heads, owners)
    directions = {"text→image": recalls.text_to_image, "image→text": recalls.image_to_text}
    nearness = hubness_of_passages(texts, encoder.photo_sample(), fit_scale(encoder.spec).reference)
    if alpha and nearness.any():
        # What is taken off the scores of a text is one more number of it.
        counts = np.full(len(heads), -alpha, dtype=np.float32)
        corrected = two_way_recall(np.c_[texts, nearness], np.c_[heads, counts], owners)
        directions["image→text, corrected"] = corrected.image_to_text
    return {f"R@{k} {name}": 100 * direction.recall(k) for name, direction in directions.items() for k in KS}


def _index_recall(
    store: Store, gallery: Gallery, texts: FloatArray, images: FloatArray, k: int = 10, most: int = 500
) -> tuple[float, str]:
    """The share of the ``k`` exactly nearest segments that the vector search finds, over at most ``most`` questions."""
    if store.recipe == "exact":
        return 1.0, "exact"
    queries = texts[np.linspace(0, len(texts) - 1, min(most, len(texts))).astype(int)]
    found = store.search(queries, k, of_kinds(store, PICTURES))
    shares = []
    for query, neighbours in zip(queries, found, strict=True):
        scores = images @ query
        nearest = gallery.segments[np.argsort(-scores, kind="stable")[:k]]
        shares.append(len(np.intersect1d(nearest, neighbours.ids)) / max(1, len(nearest)))
    return float(np.mean(shares)), store.recipe
