"""What the image encoder learns from several looks at pictures without labels."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from learn_from_views import know_hubs, learn_from_views  # noqa: E402

from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS  # noqa: E402
from mmsearch.training.builtin_model import BuiltinModel  # noqa: E402
from mmsearch.training.builtin_modules import unit  # noqa: E402
from mmsearch.training.options import BuiltinModelOptions, Freezing  # noqa: E402


@pytest.fixture
def network() -> BuiltinModel:
    network = BuiltinModel(SHIPPED_WEIGHTS, Freezing(0), BuiltinModelOptions())
    return network.eval().requires_grad_(False)


def looks(count: int, seed: int) -> np.ndarray:
    """Features of made-up pictures: each look has what the picture shows, and an error that lies on few directions."""
    draw = np.random.default_rng(seed)
    shows, errs = np.random.default_rng(9).random((2, 6, 1280))
    picture = draw.random((count, 1, 6)) ** 3
    error = draw.standard_normal((count, 3, 6)) * 0.3
    return np.clip(picture @ shows + error @ errs, 0, 6).astype(np.float32)


def test_one_look_comes_nearer_to_the_mean_of_all(network: BuiltinModel) -> None:
    learned, others = looks(3_000, 1), looks(200, 2)
    head = network.image.head
    before = head(torch.from_numpy(others))
    mean = unit(before.sum(1))
    learn_from_views(network, learned)
    after = head(torch.from_numpy(others))[:, 0]
    missed, misses = ((1 - (rows * mean).sum(1)).mean() for rows in (before[:, 0], after))
    assert misses < 0.9 * missed


def test_usual_pictures_are_as_near_to_captions_as_is_usual(network: BuiltinModel) -> None:
    draw = np.random.default_rng(0)
    usual = draw.random((50, 1280), dtype=np.float32)
    captions = [f"{one} {two} at {three}" for one in range(5) for two in ("dogs", "boys") for three in range(9)]
    know_hubs(network, captions, usual)
    hubness = network.image.hubness(network.image.head(torch.from_numpy(usual)))
    assert abs(float(hubness.mean())) < 1e-5 < float(hubness.std())
