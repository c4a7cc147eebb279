"""Objects that the image encoder learns from a detector: the regression against its oracle, and what vectors become."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from object_layer import fit_objects, ridge_regression  # noqa: E402

from mmsearch.core.errors import UsageError  # noqa: E402
from mmsearch.training.builtin_modules import FEATURES, WIDTH, ImageNet  # noqa: E402


def test_ridge_regression_is_least_squares_with_rows_that_ask_for_nothing() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(3, [0.1, 1, 10, 4], (50, 4))
    targets = inputs @ random.normal(size=(4, 2)) + random.normal(size=(50, 2))
    weights, bias = ridge_regression(inputs.astype(np.float32), targets, 7.0)
    spread = inputs.std(0) + 1e-3
    rows = np.concatenate([(inputs - inputs.mean(0)) / spread, np.sqrt(7.0) * np.eye(4)])
    wanted = np.concatenate([targets - targets.mean(0), np.zeros((4, 2))])
    oracle = np.linalg.lstsq(rows, wanted, rcond=None)[0].T / spread
    assert np.allclose(weights, oracle, atol=1e-4)
    assert np.allclose(inputs.mean(0) @ weights.T + bias, targets.mean(0), atol=1e-3)


def _taught() -> tuple[ImageNet, np.ndarray, np.ndarray]:
    """An encoder, features of 400 pictures whose channel 5 shows object 0 and channel 9 object 1, and the names."""
    random = np.random.default_rng(1)
    torch.manual_seed(1)
    image = ImageNet(8, 8)
    image.classes.data.normal_()
    features = random.random((400, FEATURES)).astype(np.float32)
    shows = random.random((400, 2)) < 0.2
    features[:, [5, 9]] += 30 * shows
    names = np.eye(3, WIDTH, dtype=np.float32)[:2] + 0.5
    fit_objects(image, features, np.where(shows, 0.9, 0.02).astype(np.float32), names)
    return image, features, shows


def test_a_picture_leans_to_the_names_of_what_it_shows() -> None:
    image, features, shows = _taught()
    logits = torch.randn(len(features), 1000)
    with torch.no_grad():
        with_objects = image.conse(logits, torch.from_numpy(features))
        amount = image.objects(torch.from_numpy(features)).clamp(min=0).numpy()
        image_without = ImageNet(8, 8)
        image_without.classes.data.copy_(image.classes)
        plain = image_without.conse(logits, torch.from_numpy(features))
    assert torch.allclose(with_objects.norm(dim=1), torch.ones(len(features)), atol=1e-5)
    names = image.object_names.detach().numpy() / 0.2
    assert np.allclose(np.linalg.norm(names, axis=1), 1, atol=1e-5)
    gain = (with_objects - plain).numpy() @ names.T
    for number in (0, 1):
        assert amount[shows[:, number], number].min() > amount[~shows[:, number], number].max()
        only = shows[:, number] & ~shows[:, 1 - number]
        assert gain[only, number].mean() > 0.05
    nothing = (amount == 0).all(1)
    assert nothing.any() and np.allclose(with_objects.numpy()[nothing], plain.numpy()[nothing], atol=1e-6)


def test_arrays_that_do_not_fit_are_named() -> None:
    with pytest.raises(UsageError, match=r"\(4, 1280\).*\(2, 384\).*found \(5, 1280\)"):
        fit_objects(ImageNet(8, 8), np.zeros((5, FEATURES)), np.zeros((4, 2)), np.zeros((2, WIDTH)))
