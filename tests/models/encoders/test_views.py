"""Several looks at each picture: the mean of what the plain encoder gives for each, and an encoder of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch import Index, open_encoder
from mmsearch.core.errors import EncoderMismatch, UsageError, VectorError
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.builtin import BuiltinEncoder
from mmsearch.models.encoders.catalogue import list_models
from mmsearch.models.encoders.pull import pull_model
from mmsearch.models.encoders.registry import canonical_name, is_present
from mmsearch.models.encoders.views import ManyViews
from mmsearch.query.calibrate.caption_bank import bank_vectors, captions_digest, generic_captions
from mmsearch.query.calibrate.fit import load_reference
from tests.support.colours import save_colour


@pytest.fixture(scope="module")
def plain() -> BuiltinEncoder:
    return BuiltinEncoder(options=EncoderOptions(threads=2))


@pytest.fixture(scope="module")
def many(plain: BuiltinEncoder) -> ManyViews:
    return ManyViews(plain, "builtin+views")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width] / 30.0
    waves = [np.sin(x * (1 + k) + seed) + np.cos(y * (2 + k) - seed) for k in range(3)]
    return Image.fromarray(np.uint8(np.stack(waves, axis=-1) * 63 + 127))


def test_a_vector_is_the_mean_of_three_looks(plain: BuiltinEncoder, many: ManyViews) -> None:
    images = [picture(320, 240), picture(200, 300, 1)]
    expected = []
    for image in images:
        width, height = image.size
        middle = image.crop((width // 8, round(height / 8), width - width // 8, height - round(height / 8)))
        looks = plain.encode_images([image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), middle])
        mean = looks.mean(axis=0)
        expected.append(mean / np.linalg.norm(mean))
    np.testing.assert_allclose(many.encode_images(images), expected, atol=2e-3)
    assert many.encode_images([]).shape == (0, plain.spec.dim)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_any_size_can_be_looked_at(plain: BuiltinEncoder, many: ManyViews, width: int, height: int) -> None:
    prepared = many.prepare_image(Image.new("RGB", (width, height), (200, 30, 30)))
    assert prepared.shape == (3, *plain.prepare_image(Image.new("RGB", (1, 1))).shape)


def test_a_mirrored_picture_has_nearly_the_same_vector(plain: BuiltinEncoder, many: ManyViews) -> None:
    image = picture(320, 240, 3)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    cosine, of_plain = (float(np.prod(e.encode_images([image, mirrored]), axis=0).sum()) for e in (many, plain))
    assert cosine > of_plain


def test_other_shapes_are_refused(plain: BuiltinEncoder, many: ManyViews) -> None:
    with pytest.raises(VectorError, match=r"builtin\+views takes \(n, 3, …\)"):
        many.encode_prepared(plain.prepare_image(picture(30, 30))[None])


def test_it_is_opened_by_name_and_is_another_encoder(many: ManyViews, tmp_path: Path) -> None:
    opened = open_encoder("builtin+views")
    assert opened.spec == many.spec and opened.spec.key != open_encoder("builtin").spec.key
    assert opened.input_size > open_encoder("builtin").input_size
    assert is_present("builtin+views") and "builtin+views" in [row.name for row in list_models()]
    assert canonical_name("ViT-B-32/LAION2B-s34b_b79k+views") == "ViT-B-32/laion2b_s34b_b79k+views"
    pull_model("builtin+views")  # nothing to fetch, so no connection
    (tmp_path / "odd+views").mkdir()
    odd = canonical_name(str(tmp_path / "odd+views"))
    assert odd == f"local-dir:{tmp_path / 'odd+views'}" == canonical_name(odd)
    assert canonical_name(f"{odd}+views") == f"{odd}+views"


def test_training_names_the_model_to_train() -> None:
    pytest.importorskip("torch")
    from mmsearch.training.options import BuiltinModelOptions, Freezing
    from mmsearch.training.run import open_network

    with pytest.raises(UsageError, match="train builtin, and index with"):
        open_network("builtin+views", Freezing(0), BuiltinModelOptions(), 0)


def test_an_index_answers_with_it_and_switches_to_it(tmp_path: Path) -> None:
    for number, colour in enumerate(("red", "green", "blue")):
        save_colour(tmp_path / "photos" / f"{colour}.png", colour, seed=number)
    with Index.open(tmp_path / "index", create=True, encoder="builtin+views") as index:
        assert index.add(tmp_path / "photos").indexed == 3
        first = index.search(image=tmp_path / "photos" / "red.png", k=1)[0]
        assert Path(first.path).name == "red.png" and first.parts["similarity"] == pytest.approx(1, abs=1e-2)
    with Index.open(tmp_path / "index") as index:  # by the name that it wrote down
        assert index.status()["model"] == "builtin+views"
        before = [hit.path for hit in index.search("a red picture", k=3)]
        index.switch("builtin")
        index.switch("builtin+views")
        assert [hit.path for hit in index.search("a red picture", k=3)] == before
    with pytest.raises(EncoderMismatch):
        Index.open(tmp_path / "index", encoder="builtin")


def test_what_ships_for_the_plain_encoder_serves_it_too(plain: BuiltinEncoder, many: ManyViews) -> None:
    captions = generic_captions()
    np.testing.assert_array_equal(bank_vectors(many, captions), bank_vectors(plain, captions))
    names = captions_digest(captions)
    own, of_plain = load_reference(many.spec.digest, names), load_reference(plain.spec.digest, names)
    assert own is not None and of_plain is not None
    np.testing.assert_array_equal(own.places, of_plain.places)
    assert load_reference("0" * 64, names) is None
