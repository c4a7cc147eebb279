"""How well questions fit pictures: the formula by hand, what ships for it, and the best pictures of captions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import write_reference

from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders import open_encoder
from mmsearch.query.calibrate.calibration import fit_scale
from mmsearch.query.calibrate.caption_bank import captions_digest, generic_captions
from mmsearch.query.calibrate.fit import (
    SHIPPED,
    TEMPERATURE,
    TOGETHER,
    USUAL,
    FitScale,
    Tops,
    load_reference,
    share_beaten,
)
from tests.support.colours import ColourEncoder


def spec(score_type: str = "cosine", scale: float | None = None) -> EncoderSpec:
    return EncoderSpec("any", "ab" * 32, 4, "none", score_type, scale)  # type: ignore[arg-type]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_shipped_photos_fit_the_shipped_weights_and_captions() -> None:
    encoder = open_encoder("builtin")
    with np.load(SHIPPED, allow_pickle=False) as stored:
        assert str(stored["encoder"]) == encoder.spec.digest, "run scripts/reference.py"
        assert str(stored["captions"]) == captions_digest(generic_captions()), "run scripts/reference.py"
    reference = fit_scale(encoder.spec).reference
    assert reference is not None and len(reference.places) >= 500
    asked = encoder.encode_texts(["a dog", "a photo", "wqxz"])
    usual = reference.usual(asked)
    assert usual.shape == (3,) and np.isfinite(usual).all()
    assert SHIPPED.stat().st_size < 200_000


def test_nothing_ships_for_other_encoders_and_a_torn_file_is_none(tmp_path: Path) -> None:
    assert fit_scale(ColourEncoder().spec).reference is None
    (tmp_path / "torn.npz").write_bytes(SHIPPED.read_bytes()[:300])
    assert load_reference("ab", "cd", tmp_path / "torn.npz") is None
    assert load_reference("ab", "cd", tmp_path / "none.npz") is None


def test_what_is_usual_is_the_quantile_over_the_photos(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    photos, corrections = unit(random.standard_normal((400, 32))), random.uniform(0, 0.1, 400).astype(np.float32)
    write_reference(photos, corrections, 16, "ab", "cd", tmp_path / "r.npz")
    reference = load_reference("ab", "cd", tmp_path / "r.npz")
    assert reference is not None and load_reference("ab", "ce", tmp_path / "r.npz") is None
    asked = unit(random.standard_normal((7, 32)))
    for question, usual in zip(asked, reference.usual(asked), strict=True):
        count = max(0.0, 2 * sum(float(x) ** 2 for x in question[:16]) - 1)
        scores = np.sort(photos @ question - count * corrections)
        assert usual == pytest.approx(scores[int(USUAL * (len(scores) - 1))], abs=0.02)


def test_the_fit_by_hand() -> None:
    to_bank = np.array([[0.3, 0.1, 0.2], [0.05, 0.0, 0.1]], dtype=np.float32)
    cosines, corrected = np.array([0.25, 0.12], dtype=np.float32), np.array([0.2, 0.1], dtype=np.float32)
    for scale, tau in ((FitScale.of(spec(), None), 0.03), (FitScale.of(spec(scale=50.0), None), 0.02)):
        crowd = scale.crowd(to_bank)
        expected = []
        for cosine, row in zip(cosines.tolist(), to_bank.tolist(), strict=True):
            mine = math.exp(cosine / tau)
            expected.append(tau * math.log(mine / (mine + sum(math.exp(one / tau) for one in row))))
        np.testing.assert_allclose(scale.fits(cosines, corrected, crowd, None), expected, atol=1e-5)
        np.testing.assert_allclose(
            scale.fits(cosines, corrected, crowd, np.float32(0.15)), np.array(expected) + corrected - 0.15, atol=1e-5
        )
    assert float(TEMPERATURE) == pytest.approx(0.03)


def test_pairwise_encoders_know_of_no_comparison_between_texts() -> None:
    scale = FitScale.of(spec("sigmoid", 110.0), None)
    corrected = np.array([0.2, 0.1], dtype=np.float32)
    crowd = scale.crowd(np.array([[0.9, 0.1], [0.1, 0.1]], dtype=np.float32))
    np.testing.assert_allclose(scale.fits(corrected + 0.1, corrected, crowd, None), corrected)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 9))
def test_tops_grow_to_what_one_look_at_all_gives(seed: int, rows: int, step: int) -> None:
    random = np.random.default_rng(seed)
    scores, fits = random.permutation(rows * 3).reshape(rows, 3), random.standard_normal((rows, 3))
    tops = Tops.none(3)
    for start in range(0, rows, step):
        part = scores[start : start + step].astype(np.float32)
        chosen = tops.promising(part)
        tops = tops.merged(part[chosen], fits[start : start + step][chosen].astype(np.float32))
    for caption in range(3):
        order = np.argsort(-scores[:, caption])[:TOGETHER]
        np.testing.assert_allclose(tops.scores[:, caption], scores[order, caption])
        np.testing.assert_allclose(tops.fits[:, caption], fits[order, caption], rtol=1e-6)
    assert tops.best().tolist() == sorted(tops.fits[0].tolist())
    np.testing.assert_allclose(tops.together(), np.sort(tops.fits.mean(axis=0)))


def test_a_share_needs_enough_to_compare_with() -> None:
    assert share_beaten(np.ones(1, np.float32), np.arange(7, dtype=np.float32)) is None
    shares = share_beaten(np.array([-1, 4.5, 99], np.float32), np.arange(9, dtype=np.float32))
    assert shares is not None and shares[0] == 0 and 0.4 < shares[1] < 0.6 and shares[2] == 1
