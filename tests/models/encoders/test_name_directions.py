"""What queries that name things get, and which texts get nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from mmsearch.models.encoders.name_directions import NameDirections

CAPTIONS = ["two dogs are running through the deep snow", "a man in a red shirt rides a bicycle down the street"]


@pytest.fixture(scope="module")
def encoder() -> BuiltinEncoder:
    return BuiltinEncoder()


def unit(rows: FloatArray) -> FloatArray:
    found: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def text(share: float, half: list[float]) -> FloatArray:
    """A text (1, 6): its first three numbers have this share of its squared length, the others are like ``half``."""
    return np.hstack([[[share**0.5, 0, 0]], (1 - share) ** 0.5 * unit(np.array([half]))]).astype(np.float32)


@pytest.fixture
def small() -> NameDirections:
    """Two names in a space of six numbers."""
    directions = np.array([[0, 2, 0, 1, 0, 0], [0, 0, 2, 0, 1, 0]], dtype=np.float32)
    return NameDirections(np.eye(3, dtype=np.float32)[:2], directions)


def test_a_name_goes_to_where_its_pictures_lie(small: NameDirections) -> None:
    query = text(0.5, [1, 0.1, 0])
    [found] = small.added_to(query)
    assert found[1] > 0.5 and abs(found[2]) < 1e-6
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    assert found[:3] @ found[:3] == pytest.approx(0.5, abs=1e-6), "how much of a caption it is must not change"


def test_two_names_get_both_directions(small: NameDirections) -> None:
    [found] = small.added_to(text(0.5, [1, 1, 0]))
    assert found[1] == pytest.approx(found[2]) and found[1] > 0.3


def test_captions_and_what_is_far_from_every_name_stay_as_they_are(small: NameDirections) -> None:
    for query in (text(0.97, [1, 0, 0]), text(0.5, [0, 0, 1]), text(0.5, [1, 0, 2.1])):
        np.testing.assert_array_equal(small.added_to(query), query)
    assert small.added_to(np.zeros((0, 6), dtype=np.float32)).shape == (0, 6)


def test_a_file_is_read_for_its_encoder_only(small: NameDirections, tmp_path: Path) -> None:
    path = tmp_path / "names.npz"
    small.write(path, "ours")
    found = NameDirections.read(path, "ours")
    assert found is not None
    np.testing.assert_allclose(found.directions, small.directions, atol=0.01)
    assert NameDirections.read(path, "other") is None
    path.write_bytes(path.read_bytes()[:100])
    assert NameDirections.read(path, "ours") is None
    assert NameDirections.read(tmp_path / "missing.npz", "ours") is None


def test_the_shipped_file_belongs_to_the_shipped_weights(encoder: BuiltinEncoder) -> None:
    found = NameDirections.read(SHIPPED_WEIGHTS / "names.npz", encoder.spec.digest)
    assert found is not None and found.directions.shape == (len(found.names), encoder.spec.dim)
    np.testing.assert_allclose(np.linalg.norm(found.names, axis=1), 1, atol=0.01)


def test_queries_that_are_captions_are_what_texts_are(encoder: BuiltinEncoder) -> None:
    np.testing.assert_array_equal(encoder.encode_queries(CAPTIONS), encoder.encode_texts(CAPTIONS))
    names = ["dog", "a photo of a pizza."]
    assert np.abs(encoder.encode_queries(names) - encoder.encode_texts(names)).max(axis=1).min() > 0.05


def test_names_in_other_languages_get_the_same(encoder: BuiltinEncoder) -> None:
    names = encoder._names
    assert names is not None
    english = encoder.encode_queries(["dog"])[0] - encoder.encode_texts(["dog"])[0]
    for word in ("狗", "Hund", "perro"):
        plain = encoder._read_queries([word], "xx")[0]
        moved = encoder.encode_queries([word], "xx")[0] - plain
        assert moved @ english > 0.8 * np.linalg.norm(moved) * np.linalg.norm(english), word


def test_named_things_are_found(encoder: BuiltinEncoder) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image ships the photographs")
    folder = Path(data.__file__).parent
    files = ["chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png"]
    photos = encoder.encode_images([Image.open(folder / file).convert("RGB") for file in files])
    scores = photos @ encoder.encode_queries(["cat", "cup", "person", "Katze", "taza"], None).T
    assert scores.argmax(axis=0).tolist() == [0, 1, 3, 0, 1]


def test_object_names_find_more_in_labelled_photos(encoder: BuiltinEncoder) -> None:
    folder = os.environ.get("MMSEARCH_TEST_DATA")
    if not folder or not (Path(folder) / "photos/labels.jsonl").is_file():
        pytest.skip("MMSEARCH_TEST_DATA names no folder with labelled photos")
    photos = Path(folder) / "photos"
    labels = [json.loads(line) for line in (photos / "labels.jsonl").read_text(encoding="utf-8").splitlines()][:64]
    rows = encoder.encode_images([Image.open(photos / "images" / label["image"]).convert("RGB") for label in labels])
    names = sorted({name for label in labels for name in label["objects"]})
    shown = np.array([[name in label["objects"] for label in labels] for name in names])
    found = []
    for queries in (encoder.encode_texts(names), encoder.encode_queries(names)):
        order = np.argsort(-queries @ rows.T, axis=1)
        hits = np.take_along_axis(shown, order, axis=1)
        precision = np.cumsum(hits, axis=1) / np.arange(1, len(labels) + 1)
        found.append(float(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean()))
    assert found[1] > found[0] + 0.03, found
