"""Measures against counts by hand, obvious slow versions, trec_eval and scipy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.core.errors import UsageError
from mmsearch.evaluate import metrics

RANKED = ["a", "b", "c", "d", "e"]
RELEVANT = {"b", "d", "x"}


# ---- one ranked list


def test_hand_counted_binary_measures() -> None:
    assert metrics.recall_at_k(RANKED, RELEVANT, 1) == 0
    assert metrics.recall_at_k(RANKED, RELEVANT, 2) == pytest.approx(1 / 3)
    assert metrics.recall_at_k(RANKED, RELEVANT, 99) == pytest.approx(2 / 3)
    assert [metrics.hit_at_k(RANKED, RELEVANT, k) for k in (1, 2, 5)] == [0.0, 1.0, 1.0]
    assert metrics.precision_at_k(RANKED, RELEVANT, 4) == 0.5
    assert metrics.precision_at_k(RANKED, RELEVANT, 10) == 0.2, "an empty place is not relevant"
    assert metrics.first_relevant_rank(RANKED, RELEVANT) == 2
    assert metrics.first_relevant_rank(RANKED, {"x"}) is None
    assert metrics.reciprocal_rank(RANKED, RELEVANT) == 0.5
    assert metrics.reciprocal_rank(RANKED, {"x"}) == 0.0
    assert metrics.average_precision(RANKED, RELEVANT) == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert metrics.average_precision(RANKED, RELEVANT, k=3) == pytest.approx((1 / 2) / 3)
    assert metrics.recall_at_k([], RELEVANT, 3) == metrics.average_precision([], RELEVANT) == 0


def test_hand_counted_ndcg() -> None:
    grades = {"a": 1.0, "b": 3.0, "z": 2.0, "c": 0.0, "d": -1.0}
    linear = (1 / 1 + 3 / math.log2(3)) / (3 + 2 / math.log2(3) + 1 / 2)
    exponential = (1 / 1 + 7 / math.log2(3)) / (7 + 3 / math.log2(3) + 1 / 2)
    assert metrics.ndcg(RANKED, grades) == pytest.approx(linear)
    assert metrics.ndcg(RANKED, grades, gain="exponential") == pytest.approx(exponential)
    assert metrics.ndcg(RANKED, grades, k=1) == pytest.approx(1 / 3)
    assert metrics.ndcg(["b", "z", "a"], grades) == 1.0
    assert metrics.ndcg([], grades) == 0.0


def test_median_rank() -> None:
    assert metrics.median_rank([7, 1, 3]) == 3
    assert metrics.median_rank([1, 2, 3, 10]) == 2.5
    assert metrics.median_rank([1, math.inf, math.inf, math.inf]) == math.inf
    assert metrics.median_rank([1, 2, 2, math.inf]) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: metrics.recall_at_k(RANKED, set(), 3),
        lambda: metrics.hit_at_k(RANKED, RELEVANT, 0),
        lambda: metrics.average_precision(["a", "a"], RELEVANT),
        lambda: metrics.ndcg(RANKED, {"a": 0.0}),
        lambda: metrics.ndcg(RANKED, {"a": 1.0}, gain="cubic"),  # type: ignore[arg-type]
        lambda: metrics.median_rank([]),
        lambda: metrics.kendall_tau([1, 1], [1, 2]),
        lambda: metrics.kendall_tau([1, 2], [1, 2, 3]),
        lambda: metrics.kendall_tau([1, 2], [1, 2], variant="a"),  # type: ignore[arg-type]
        lambda: metrics.bootstrap_interval([math.nan]),
        lambda: metrics.bootstrap_interval([1.0], level=1.0),
        lambda: metrics.permutation_test([1.0], [1.0, 2.0]),
        lambda: metrics.permutation_test([1.0], [math.inf]),
        lambda: metrics.permutation_test([1.0], [2.0], samples=0),
    ],
)
def test_meaningless_questions_are_refused(wrong: Any) -> None:
    with pytest.raises(UsageError):
        wrong()


def random_run(random: np.random.Generator) -> tuple[list[str], dict[str, int]]:
    documents = [f"d{i}" for i in range(40)]
    ranked = list(random.permutation(documents)[: random.integers(1, 41)])
    judged = random.permutation(documents)[: random.integers(1, 25)]
    grades = {str(d): int(random.integers(0, 4)) for d in judged}
    grades[str(judged[0])] = 2
    return [str(d) for d in ranked], grades


def test_equal_to_trec_eval_on_random_runs() -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec-eval-terrier is not installed")
    random = np.random.default_rng(6)
    ks = (1, 3, 5, 10, 100)
    names = {"map", "recip_rank", "ndcg"}
    cut = {f"{name}.{','.join(map(str, ks))}" for name in ("P", "recall", "success", "map_cut", "ndcg_cut")}
    for _ in range(300):
        ranked, grades = random_run(random)
        relevant = {d for d, g in grades.items() if g > 0}
        run = {d: float(len(ranked) - place) for place, d in enumerate(ranked)}
        theirs = pytrec_eval.RelevanceEvaluator({"q": grades}, names | cut).evaluate({"q": run})["q"]
        ours = {
            "map": metrics.average_precision(ranked, relevant),
            "recip_rank": metrics.reciprocal_rank(ranked, relevant),
            "ndcg": metrics.ndcg(ranked, grades),
        }
        for k in ks:
            ours[f"P_{k}"] = metrics.precision_at_k(ranked, relevant, k)
            ours[f"recall_{k}"] = metrics.recall_at_k(ranked, relevant, k)
            ours[f"success_{k}"] = metrics.hit_at_k(ranked, relevant, k)
            ours[f"map_cut_{k}"] = metrics.average_precision(ranked, relevant, k)
            ours[f"ndcg_cut_{k}"] = metrics.ndcg(ranked, grades, k)
        assert set(ours) == set(theirs)
        for name, value in ours.items():
            assert value == pytest.approx(theirs[name], rel=0, abs=1e-9), name


def test_exponential_gain_is_linear_gain_of_transformed_grades() -> None:
    random = np.random.default_rng(7)
    for _ in range(50):
        ranked, grades = random_run(random)
        transformed = {d: 2.0**g - 1 for d, g in grades.items()}
        assert metrics.ndcg(ranked, grades, 10, "exponential") == pytest.approx(
            metrics.ndcg(ranked, transformed, 10), abs=1e-12
        )


# ---- two matrices of vectors


def slow_rank(scores: list[float], right: Collection[int], ties: str) -> int:
    """Sort the gallery in the order that the docstring states, look up the first right item."""
    second = {
        "pessimistic": lambda i: i in right,
        "optimistic": lambda i: i not in right,
        "first": lambda i: i,
    }[ties]
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], second(i)))
    return 1 + next(place for place, item in enumerate(order) if item in right)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    texts=st.integers(1, 12),
    images=st.integers(1, 9),
    ties=st.sampled_from(["pessimistic", "optimistic", "first"]),
    block=st.integers(1, 60),
)
def test_two_way_recall_equals_sorting(seed: int, texts: int, images: int, ties: Any, block: int) -> None:
    random = np.random.default_rng(seed)
    text_vectors = random.integers(-1, 2, (texts, 3)).astype(np.float32)  # few values: many exact ties
    image_vectors = random.integers(-1, 2, (images, 3)).astype(np.float32)
    images_of_text = [set(random.choice(images, random.integers(0, images + 1), replace=False).tolist())
                      for _ in range(texts)]  # fmt: skip
    images_of_text[0] |= {0}
    result = metrics.two_way_recall(text_vectors, image_vectors, images_of_text, ties, block)

    scores = text_vectors @ image_vectors.T
    texts_of_image = [{t for t in range(texts) if i in images_of_text[t]} for i in range(images)]
    for direction, table, positives in (
        (result.text_to_image, scores, images_of_text),
        (result.image_to_text, scores.T, texts_of_image),
    ):
        asked = [row for row, right in enumerate(positives) if right]
        expected = [slow_rank(table[row].tolist(), positives[row], ties) for row in asked]
        assert direction.queries.tolist() == asked
        assert direction.ranks.tolist() == expected
        assert direction.gallery == table.shape[1]


def clip_benchmark_recall(scores: np.ndarray, positive_pairs: np.ndarray, k: int) -> float:
    """clip_benchmark/metrics/zeroshot_retrieval.py, line by line with numpy in place of torch."""
    topk_indices = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    number_of_positives = positive_pairs.sum(axis=1)
    onehot = np.eye(scores.shape[1])[topk_indices]
    true_positives = (onehot * positive_pairs[:, None, :]).sum(axis=(1, 2))
    return float((true_positives / number_of_positives > 0).mean())


def test_equal_to_clip_benchmark_with_five_captions_an_image() -> None:
    random = np.random.default_rng(3)
    images = random.normal(size=(60, 16)).astype(np.float32)
    image_of_text = np.repeat(np.arange(60), 5)
    texts = (images[image_of_text] + 2.0 * random.normal(size=(300, 16))).astype(np.float32)
    ours = metrics.two_way_recall(texts, images, [[int(i)] for i in image_of_text], block_scores=777)
    scores = texts @ images.T
    pairs = image_of_text[:, None] == np.arange(60)
    for k in (1, 5, 10):
        assert ours.recalls()[f"image_retrieval_recall@{k}"] == clip_benchmark_recall(scores, pairs, k)
        assert ours.recalls()[f"text_retrieval_recall@{k}"] == clip_benchmark_recall(scores.T, pairs.T, k)
    assert 0.1 < ours.text_to_image.recall(1) < ours.image_to_text.recall(1) < 1.0


def test_a_model_without_any_knowledge_earns_nothing() -> None:
    same = np.ones((4, 2), dtype=np.float16)
    positives = [[0], [1], [2], [3]]
    recall = {ties: metrics.two_way_recall(same, same, positives, ties).text_to_image.recall(1)
              for ties in ("pessimistic", "first", "optimistic")}  # fmt: skip
    assert recall == {"pessimistic": 0.0, "first": 0.25, "optimistic": 1.0}


@pytest.mark.parametrize(
    ("queries", "gallery", "positives", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), [[0], [1]], r"\(2, 3\).*\(2, 4\)"),
        (np.ones((2, 3)), np.ones((2, 3)), [[0]], "2 .* 1 "),
        (np.ones((1, 3)), np.ones((2, 3)), [[2]], "2"),
        (np.ones((1, 3)), np.ones((2, 3)), [[-1]], "-1"),
        (np.ones((1, 3)), np.ones((2, 3)), [[]], "no query"),
        (np.full((1, 3), np.nan), np.ones((2, 3)), [[0]], "NaN"),
        (np.ones((1, 3)), np.ones((0, 3)), [[]], r"\(0, 3\)"),
    ],
)
def test_matrices_that_do_not_fit(queries: Any, gallery: Any, positives: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        metrics.best_ranks(queries, gallery, positives)
    with pytest.raises(UsageError):
        metrics.two_way_recall(queries, gallery, positives)


# ---- statistics over queries


def test_bootstrap_interval_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    interval = metrics.bootstrap_interval(values)
    half_width = 1.96 * values.std() / math.sqrt(400)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)
    assert interval == metrics.bootstrap_interval(values), "one seed, one interval"
    assert interval != metrics.bootstrap_interval(values, seed=1)
    wider = metrics.bootstrap_interval(values, level=0.99)
    assert wider.low < interval.low < interval.high < wider.high


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    intervals = [metrics.bootstrap_interval(random.random(100) < 0.3, samples=400, level=0.9) for _ in range(300)]
    covered = np.mean([interval.low <= 0.3 <= interval.high for interval in intervals])
    assert 0.84 < covered < 0.95


def test_bootstrap_interval_of_a_median_rank_with_queries_that_found_nothing() -> None:
    interval = metrics.bootstrap_interval(
        [1.0, 2.0, 3.0, 4.0, math.inf, math.inf, math.inf], lambda rows: np.median(rows, axis=1)
    )
    assert interval.estimate == 4 and interval.low < 4 and interval.high == math.inf


def slow_permutation_test(a: list[float], b: list[float]) -> float:
    differences = [x - y for x, y in zip(a, b, strict=True)]
    seen = abs(sum(differences))
    sums = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(total >= seen - 1e-9 for total in sums) / len(sums)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=1, max_size=9))
def test_permutation_test_counts_all_sign_patterns(pairs: list[tuple[int, int]]) -> None:
    a, b = [x / 10 for x, _ in pairs], [y / 10 for _, y in pairs]
    p = metrics.permutation_test(a, b)
    assert p == pytest.approx(slow_permutation_test(a, b))
    assert p == metrics.permutation_test(b, a)


def test_permutation_test_by_sampling_agrees_with_counting() -> None:
    random = np.random.default_rng(4)
    a, b = random.random(13), random.random(13)
    exact = metrics.permutation_test(a, b, samples=2**13)
    sampled = metrics.permutation_test(a, b, samples=2**13 - 1)
    assert exact != sampled and sampled == pytest.approx(exact, abs=0.02)
    assert metrics.permutation_test(np.ones(100), np.zeros(100), samples=999) == 1 / 1000, "never 0"


def test_permutation_test_does_not_cry_wolf() -> None:
    random = np.random.default_rng(5)
    false_alarms = np.mean(
        [metrics.permutation_test(*random.random((2, 40)), samples=300, seed=i) < 0.05 for i in range(300)]
    )
    assert false_alarms < 0.09


def test_compare_runs() -> None:
    comparison = metrics.compare_runs([1, 1, 1, 0, 1, 1], [0, 1, 0, 1, 0, 0])
    assert (comparison.wins, comparison.draws, comparison.losses) == (4, 1, 1)
    assert comparison.difference.estimate == pytest.approx(0.5)
    assert comparison.difference.low < 0.5 < comparison.difference.high
    assert comparison.p_value == pytest.approx(12 / 32)  # 4 or 5 wins or losses of 5: (5 + 1) · 2 / 2^5
    same = metrics.compare_runs([0.3, 0.4], [0.3, 0.4])
    assert same.p_value == 1.0 and same.difference.low == same.difference.high == 0.0


def slow_tau(x: list[int], y: list[int], variant: str) -> float:
    def sign(value: int) -> int:
        return (value > 0) - (value < 0)

    pairs = list(itertools.combinations(range(len(x)), 2))
    surplus = sum(sign(x[i] - x[j]) * sign(y[i] - y[j]) for i, j in pairs)
    if variant == "b":
        untied = [sum(v[i] != v[j] for i, j in pairs) for v in (x, y)]
        return surplus / math.sqrt(untied[0] * untied[1])
    smaller = min(len(set(x)), len(set(y)))
    return 2 * surplus / (len(x) ** 2 * (smaller - 1) / smaller)


@settings(max_examples=200, deadline=None)
@given(
    grades=st.integers(1, 40).flatmap(
        lambda top: st.lists(st.tuples(st.integers(0, top), st.integers(-3, 3)), min_size=2, max_size=60)
    ),
    variant=st.sampled_from(["b", "c"]),
)
def test_kendall_tau_equals_counting_pairs(grades: list[tuple[int, int]], variant: Any) -> None:
    x, y = [a for a, _ in grades], [b for _, b in grades]
    if len(set(x)) == 1 or len(set(y)) == 1:
        with pytest.raises(UsageError, match="undefined"):
            metrics.kendall_tau(x, y, variant)
        return
    tau = metrics.kendall_tau(x, y, variant)
    assert tau == pytest.approx(slow_tau(x, y, variant), abs=1e-12)
    assert tau == pytest.approx(metrics.kendall_tau(y, x, variant), abs=1e-12)


def test_kendall_tau_by_hand() -> None:
    assert metrics.kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == 1.0
    assert metrics.kendall_tau([1, 2, 3, 4], [4, 3, 2, 1], "c") == -1.0
    # Pairs: 2 alike, 1 opposite, none tied of 3.
    assert metrics.kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)


def test_kendall_tau_equals_scipy_at_the_size_of_flickr8k_expert() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    random = np.random.default_rng(8)
    human = random.integers(1, 5, 16_992)
    score = 0.2 * human + random.normal(size=human.size).round(2)
    for variant in ("b", "c"):
        expected = stats.kendalltau(score, human, variant=variant).statistic
        assert metrics.kendall_tau(score, human, variant) == pytest.approx(expected, rel=0, abs=1e-12)
