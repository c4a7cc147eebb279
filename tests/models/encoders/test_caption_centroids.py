"""Where captions lie: the file, how near pictures are to it by a slow oracle, and that hubness goes by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.api import Index
from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.encoders.caption_centroids import (
    FILE,
    NEIGHBOURS,
    nearness,
    read_caption_centroids,
    write_caption_centroids,
)
from mmsearch.query import SearchOptions
from mmsearch.query.calibrate.fit import GENERIC, weights
from mmsearch.query.options import ALPHA
from mmsearch.store.local.store import LocalStore
from tests.support.colours import ColourEncoder, save_colour

DIGEST = "d" * 64


def rows(count: int, dim: int, seed: int = 0) -> FloatArray:
    found = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("captions", [1, NEIGHBOURS, 40])
def test_how_near_by_hand(captions: int) -> None:
    vectors, centroids = rows(6, 5), rows(captions, 3, seed=1)
    expected = []
    for vector in vectors:
        products = [sum(float(a) * float(b) for a, b in zip(vector, middle, strict=False)) for middle in centroids]
        best = sorted(products)[-NEIGHBOURS:]
        expected.append(sum(best) / len(best))
    np.testing.assert_allclose(nearness(vectors, centroids), expected, atol=1e-6)
    assert nearness(vectors[:0], centroids).shape == (0,)


def test_the_file_holds_them_at_length_1_for_one_encoder(tmp_path: Path) -> None:
    write_caption_centroids(tmp_path, DIGEST, 3 * rows(20, 7))
    read = read_caption_centroids(tmp_path, DIGEST)
    assert read is not None and read.dtype == np.float32
    np.testing.assert_allclose(read, rows(20, 7), atol=1 / 254)
    assert read_caption_centroids(tmp_path, "e" * 64) is None
    assert read_caption_centroids(tmp_path / "elsewhere", DIGEST) is None


@given(st.binary(max_size=200), st.integers(0, 600))
def test_a_damaged_file_is_none(some: bytes, cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_caption_centroids(folder, DIGEST, rows(20, 7))
        whole = (folder / FILE).read_bytes()
        for content in (some, whole[:cut], whole[:cut] + some):
            (folder / FILE).write_bytes(content)
            found = read_caption_centroids(folder, DIGEST)
            assert content == whole or found is None or np.isfinite(found).all()


def test_the_built_in_encoder_has_some_and_so_have_several_views() -> None:
    encoder = open_encoder("builtin")
    found, views = encoder.caption_centroids(), open_encoder("builtin+views").caption_centroids()
    assert found is not None and found.shape[1] <= encoder.spec.dim
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=0.01)
    np.testing.assert_array_equal(found, views)
    assert ColourEncoder().caption_centroids() is None


class WithMiddles(ColourEncoder):
    """Colours, and captions that all speak of red things."""

    def caption_centroids(self) -> FloatArray:
        return self.encode_texts(["red"] * NEIGHBOURS)[:, :3]


def test_the_correction_for_hubness_goes_by_them(tmp_path: Path) -> None:
    for number, name in enumerate(("red", "blue", "green", "white")):
        save_colour(tmp_path / "photos" / f"{name}.png", name, seed=number)
    encoder = WithMiddles()
    with Index.open(tmp_path / "index", create=True, encoder=encoder) as index:
        index.add(tmp_path / "photos")
        directory = index._directory
        vectors = directory.matrix(directory.space()).astype(np.float32)
        expected = vectors[:, :3] @ encoder.caption_centroids()[0]
        hits = index.search("white", options=SearchOptions(k=4, words=0.0))
        hubness = LocalStore(directory).columns(np.arange(len(vectors))).hubness
        np.testing.assert_allclose(hubness, expected, atol=1e-3)
    by_path = {Path(hit.path).stem: hit.parts["hubness"] for hit in hits}
    count = 2 * float((encoder.encode_texts(["white"])[0, :3] ** 2).sum()) - 1
    assert by_path["red"] == min(by_path.values()) == pytest.approx(-ALPHA * count * expected.max(), abs=1e-3)


def test_a_question_counts_as_far_as_it_is_a_caption() -> None:
    half = np.float32(0.5) ** 0.5
    questions = np.array([[1, 0, 0], [half, 0, half], [0, 0, 1], [0.8, 0.4, 0.2**0.5]], dtype=np.float32)
    np.testing.assert_allclose(weights(questions, 2), [1, 0, 0, 0.6], atol=1e-6)
    np.testing.assert_array_equal(weights(questions, 0), np.float32(GENERIC))
    encoder = open_encoder("builtin")
    asked = encoder.encode_texts(["a brown dog runs along the beach with a stick", "dog", "wine glass"])
    found = weights(asked, encoder.caption_centroids().shape[1])
    assert found[0] > 0.9 and found[1:].max() < 0.3
