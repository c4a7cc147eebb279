"""Made-up pictures of classes: the classifier knows them, and they lie where pictures of Gaussian classes lie."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from mmsearch.training.builtin_modules import PROBABILITY, Vocabulary  # noqa: E402


def gaussian_classes(classes: int, width: int, each: int) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Linear]:
    """Features of ``classes`` Gaussians of one covariance, their means, and Fisher's discriminant as a classifier."""
    torch.manual_seed(0)
    mixing = torch.eye(width) + 0.05 * torch.randn(width, width)
    means = 4 + 0.5 * torch.randn(classes, width)
    features = (means[:, None] + torch.randn(classes, each, width) @ mixing.T).flatten(0, 1)
    within = mixing @ mixing.T
    classifier = torch.nn.Linear(width, classes).requires_grad_(False)
    classifier.weight.copy_(torch.linalg.solve(within, means.T).T)
    classifier.bias.copy_(-0.5 * (classifier.weight * means).sum(1))
    return features, means, classifier


def test_the_classifier_knows_them() -> None:
    features, _, classifier = gaussian_classes(12, 48, 200)
    vocabulary = Vocabulary(features, classifier, 12)
    plain = (vocabulary.mean + vocabulary.steps).clamp(min=0)
    sure = classifier(plain).softmax(1).diagonal()
    assert (sure >= PROBABILITY - 0.02).all()
    classes, made_up = vocabulary.pictures(features, 12)
    assert made_up.shape == (12, 48)
    assert sorted(classes.tolist()) == list(range(12)), "each class once"
    assert (made_up >= 0).all(), "features come out of a rectifier"


def test_they_point_to_where_real_pictures_lie() -> None:
    features, means, classifier = gaussian_classes(12, 48, 200)
    vocabulary = Vocabulary(features, classifier, 12)
    directions = means - features.mean(0)
    found = torch.cosine_similarity(vocabulary.steps, directions)
    plain_weights = torch.cosine_similarity(classifier.weight - classifier.weight.mean(0), directions)
    assert found.mean() > plain_weights.mean() + 0.05, "the covariance must help"


def test_only_named_classes_are_shown() -> None:
    features, _, classifier = gaussian_classes(12, 48, 50)
    classes, made_up = Vocabulary(features, classifier, 5).pictures(features[:3], 64)
    assert sorted(classes.tolist()) == list(range(5))
    assert len(made_up) == 5
