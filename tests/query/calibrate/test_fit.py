"""How relevant hits are: the formula by hand, what ships for it, and that it never rises down a list."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import write_reference

from mmsearch.models.encoders import open_encoder
from mmsearch.query.calibrate.calibration import fit_scale
from mmsearch.query.calibrate.caption_bank import captions_digest, generic_captions
from mmsearch.query.calibrate.fit import (
    CURVE,
    ENOUGH,
    FREQUENT,
    SHIPPED,
    Curve,
    FitScale,
    Pooled,
    TextSpread,
    load_reference,
    never_rising,
    share_beaten,
)
from tests.support.colours import ColourEncoder


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_shipped_photos_fit_the_shipped_weights_and_captions() -> None:
    encoder = open_encoder("builtin")
    with np.load(SHIPPED, allow_pickle=False) as stored:
        assert str(stored["encoder"]) == encoder.spec.digest, "run scripts/reference.py"
        assert str(stored["captions"]) == captions_digest(generic_captions()), "run scripts/reference.py"
    reference = fit_scale(encoder.spec).reference
    assert reference is not None and len(reference.places) >= 500
    assert reference.curve is not None, "run scripts/fit_relevance.py"
    person, giraffe = (reference.spread(query, 0.1) for query in encoder.encode_texts(["person", "giraffe"]))
    assert person.high < FREQUENT < giraffe.high, "half of the photos show people"
    assert SHIPPED.stat().st_size < 400_000


def test_nothing_ships_for_other_encoders_and_a_torn_file_is_none(tmp_path: Path) -> None:
    assert fit_scale(ColourEncoder().spec).reference is None
    (tmp_path / "torn.npz").write_bytes(SHIPPED.read_bytes()[:300])
    assert load_reference("ab", "cd", tmp_path / "torn.npz") is None
    assert load_reference("ab", "cd", tmp_path / "none.npz") is None


def test_the_spread_is_that_of_the_corrected_scores_of_the_photos(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    photos, corrections = unit(random.standard_normal((400, 32))), random.uniform(0, 0.1, 400).astype(np.float32)
    write_reference(photos, corrections, 16, "ab", "cd", tmp_path / "r.npz")
    reference = load_reference("ab", "cd", tmp_path / "r.npz")
    assert reference is not None and load_reference("ab", "ce", tmp_path / "r.npz") is None
    assert reference.curve is None and FitScale(reference).curve == CURVE
    for query in unit(random.standard_normal((7, 32))):
        spread = reference.spread(query, 0.3)
        scores = np.sort(photos @ query - 0.3 * corrections)
        assert spread.mean == pytest.approx(scores.mean(), abs=2e-3)
        assert spread.deviation == pytest.approx(scores.std(), abs=2e-3)
        assert spread.high == pytest.approx((scores[int(0.99 * 399)] - scores.mean()) / scores.std(), abs=0.05)


def test_the_curve_of_an_encoder_comes_with_its_photos(tmp_path: Path) -> None:
    photos = unit(np.random.default_rng(0).standard_normal((200, 8)))
    write_reference(photos, np.zeros(200, np.float32), 0, "ab", "cd", tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz") as stored:
        values = dict(stored)
    np.savez(tmp_path / "r.npz", **values, curve=np.array([-3.0, 1.0, -2.0, 0.5, 4.0]))
    reference = load_reference("ab", "cd", tmp_path / "r.npz")
    assert reference is not None and reference.curve == Curve(-3.0, 1.0, -2.0, 0.5, 4.0) == FitScale(reference).curve
    np.savez(tmp_path / "r.npz", **values, curve=np.array([-3.0, 1.0]))
    assert load_reference("ab", "cd", tmp_path / "r.npz") is None, "made by another version"


def test_the_relevance_by_hand() -> None:
    curve, spread = Curve(-3.0, 1.0, -2.0, 0.5, 4.0), TextSpread(0.1, 0.05, 2.0)
    scores = np.array([0.3, 0.15], dtype=np.float32)
    for words, n in ((0, 0.0), (1, 0.0), (5, math.log(5))):
        expected = [1 / (1 + math.exp(3 - z + 2 * n - 0.5 * n * z - 4 * 0.5)) for z in (4.0, 1.0)]
        np.testing.assert_allclose(curve.relevance(scores, spread, words), expected, rtol=1e-5)
    rare = curve.relevance(scores, TextSpread(0.1, 0.05, 9.0), 1)
    assert (rare < curve.relevance(scores, spread, 1)).all(), "what photos show often is right at a lower score"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 20))
def test_relevance_rises_with_the_score_whatever_the_text(seed: int, words: int) -> None:
    random = np.random.default_rng(seed)
    scores = np.sort(random.uniform(-1, 8, 30)).astype(np.float32)
    spread = TextSpread(random.uniform(-0.3, 0.3), random.uniform(1e-6, 0.3), random.uniform(-3, 9))
    relevance = CURVE.relevance(scores, spread, words)
    assert (np.diff(relevance) >= 0).all() and (relevance >= 0).all() and (relevance <= 1).all()


@given(st.lists(st.none() | st.floats(0, 1)))
def test_whatever_comes_never_rises(values: list[float | None]) -> None:
    held = never_rising(values)
    known = [value for value in held if value is not None]
    assert known == sorted(known, reverse=True)
    assert [value is None for value in held] == [value is None for value in values]
    assert all(value is None or value <= given for value, given in zip(held, values, strict=True) if given is not None)
    assert never_rising(sorted(known, reverse=True)) == known


def test_few_pictures_of_a_store_tell_little_of_a_text() -> None:
    random = np.random.default_rng(0)
    captions = random.normal(0.1, 0.05, (300, 40)).astype(np.float32)
    pooled = Pooled().plus(captions[:100]).plus(captions[100:])
    whole = pooled.spread(np.zeros(0, np.float32))
    assert whole is not None and whole.mean == pytest.approx(captions.mean(), abs=1e-5)
    assert whole.deviation == pytest.approx(captions.std(), abs=1e-4)
    assert Pooled().spread(captions[0]) is None
    dogs = np.full(3, 0.4, np.float32)  # all of a tiny library shows it: it must not look ordinary
    few = pooled.spread(dogs)
    assert few is not None and abs(few.mean - whole.mean) < 0.02 and few.high == FREQUENT
    many = pooled.spread(random.normal(0.3, 0.1, 20_000).astype(np.float32))
    assert (
        many is not None
        and many.mean == pytest.approx(0.3, abs=0.01)
        and many.deviation == pytest.approx(0.1, abs=0.01)
    )
    assert pooled.spread(np.linspace(0, 1, ENOUGH, dtype=np.float32)).high < FREQUENT  # type: ignore[union-attr]


def test_a_share_needs_enough_to_compare_with() -> None:
    assert share_beaten(np.ones(1, np.float32), np.arange(7, dtype=np.float32)) is None
    shares = share_beaten(np.array([-1, 4.5, 99], np.float32), np.arange(9, dtype=np.float32))
    assert shares is not None and shares[0] == 0 and 0.4 < shares[1] < 0.6 and shares[2] == 1
