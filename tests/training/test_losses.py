"""Each loss against a few lines of NumPy, and cached gradients against plain ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.core.errors import UsageError

torch = pytest.importorskip("torch")

from mmsearch.training.losses import Objective, hardest_triplet, info_nce, sigmoid  # noqa: E402
from mmsearch.training.options import LossOptions  # noqa: E402
from mmsearch.training.steps import word_loss  # noqa: E402

sizes = st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(0, 1000))


def drawn(n: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(2, n, dim))
    images, texts = rows / np.linalg.norm(rows, axis=2, keepdims=True)
    return images, texts, random.integers(0, max(1, n - 1) + 1, n)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(a, dtype=torch.int64 if a.dtype.kind == "i" else torch.float32) for a in arrays]


def numpy_info_nce(images: np.ndarray, texts: np.ndarray, scale: float, groups: np.ndarray) -> float:
    losses = []
    for queries, answers in ((images, texts), (texts, images)):
        for i, query in enumerate(queries):
            allowed = [j for j in range(len(answers)) if j == i or groups[j] != groups[i]]
            scores = np.array([scale * query @ answers[j] for j in allowed])
            losses.append(np.log(np.exp(scores).sum()) - scale * query @ answers[i])
    return float(np.mean(losses))


def numpy_triplet(images: np.ndarray, texts: np.ndarray, margin: float, groups: np.ndarray) -> float:
    total = 0.0
    for i in range(len(images)):
        others = [j for j in range(len(images)) if groups[j] != groups[i]]
        own = images[i] @ texts[i]
        if others:
            total += max(0.0, margin - own + max(images[i] @ texts[j] for j in others))
            total += max(0.0, margin - own + max(images[j] @ texts[i] for j in others))
    return total / len(images)


def numpy_sigmoid(images: np.ndarray, texts: np.ndarray, scale: float, bias: float, groups: np.ndarray) -> float:
    total = 0.0
    for i in range(len(images)):
        for j in range(len(texts)):
            sign = 1 if groups[i] == groups[j] else -1
            total += math.log(1 + math.exp(-sign * (scale * images[i] @ texts[j] + bias)))
    return total / len(images)


@settings(max_examples=30, deadline=None)
@given(sizes, st.floats(0.5, 30))
def test_info_nce_is_two_cross_entropies(size: tuple[int, int, int], scale: float) -> None:
    images, texts, groups = drawn(*size)
    found = info_nce(*tensors(images, texts), torch.tensor(scale), *tensors(groups))
    assert float(found) == pytest.approx(numpy_info_nce(images, texts, scale, groups), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(sizes, st.floats(0.05, 1))
def test_triplet_takes_the_hardest_wrong_one(size: tuple[int, int, int], margin: float) -> None:
    images, texts, groups = drawn(*size)
    found = hardest_triplet(*tensors(images, texts), margin, *tensors(groups))
    assert float(found) == pytest.approx(numpy_triplet(images, texts, margin, groups), abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(sizes, st.floats(0.5, 12), st.floats(-10, 2))
def test_sigmoid_judges_every_combination(size: tuple[int, int, int], scale: float, bias: float) -> None:
    images, texts, groups = drawn(*size)
    found = sigmoid(*tensors(images, texts), torch.tensor(scale), torch.tensor(bias), *tensors(groups))
    assert float(found) == pytest.approx(numpy_sigmoid(images, texts, scale, bias, groups), rel=1e-4, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(sizes, st.floats(0.5, 15))
def test_word_loss_is_a_divergence(size: tuple[int, int, int], scale: float) -> None:
    images, words, _ = drawn(*size)
    shares = np.abs(np.random.default_rng(size[2] + 1).normal(size=(len(words), len(images)))).round(1)
    shares[:, 0] += 0.1
    total = 0.0
    for word, share in zip(words, shares, strict=True):
        wanted = share / share.sum()
        odds = np.exp(scale * images @ word)
        found = odds / odds.sum()
        total += sum(p * np.log(p / q) for p, q in zip(wanted, found, strict=True) if p > 0)
    loss = word_loss(*tensors(images, words, shares), scale)
    assert float(loss) == pytest.approx(total / len(words), abs=1e-4)


def test_label_smoothing_never_reaches_columns_that_were_taken_away() -> None:
    images, texts, _ = drawn(4, 5, 0)
    groups = torch.tensor([0, 0, 1, 2])
    rows = tensors(images, texts)
    plain = info_nce(*rows, torch.tensor(5.0), groups, 0.0)
    smooth = info_nce(*rows, torch.tensor(5.0), groups, 0.2)
    assert math.isfinite(float(smooth)) and float(smooth) != float(plain)
    different = torch.arange(4)
    expected = sum(
        torch.nn.functional.cross_entropy(s, different, label_smoothing=0.2)
        for s in (5 * rows[0] @ rows[1].T, 5 * rows[1] @ rows[0].T)
    )
    assert float(info_nce(*rows, torch.tensor(5.0), different, 0.2)) == pytest.approx(float(expected) / 2, abs=1e-6)


@pytest.mark.parametrize("name", ["infonce", "triplet", "sigmoid"])
def test_constants_learn_where_the_loss_has_them(name: str) -> None:
    images, texts, _ = drawn(5, 4, 1)
    objective = Objective(LossOptions(name=name))  # type: ignore[arg-type]
    rows = [row.requires_grad_() for row in tensors(images, texts)]
    objective(*rows, torch.arange(5)).backward()
    assert rows[0].grad is not None and rows[1].grad is not None
    assert (objective.log_scale.grad is not None) == (name != "triplet")
    assert (objective.bias.grad is not None) == (name == "sigmoid")


def test_scale_stays_below_its_limit() -> None:
    objective = Objective(LossOptions(scale=1000.0))
    assert float(objective.scale.detach()) == pytest.approx(100.0)


@pytest.mark.parametrize("options", [{"name": "other"}, {"margin": 0.0}, {"label_smoothing": 1.0}, {"scale": -1.0}])
def test_senseless_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Objective(LossOptions(**options))  # type: ignore[arg-type]
