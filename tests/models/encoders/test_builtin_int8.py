"""The built-in image encoder in int8: as good as in float32, and only where it is computed rightly."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsearch.api import Index
from mmsearch.models.encoders import builtin
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from mmsearch.models.encoders.machine_plan import machine

INT8 = EncoderOptions(precision="int8")
needs_vnni = pytest.mark.skipif("vnni" not in machine(1), reason="int8 runs on processors with VNNI only")


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    data = pytest.importorskip("skimage.data", reason="scikit-image ships the photographs")
    folder = Path(data.__file__).parent
    whole = [Image.open(folder / name).convert("RGB") for name in ("chelsea.png", "coffee.png", "astronaut.png")]
    halves = [one.crop((0, 0, one.width // 2, one.height)) for one in whole]
    return [*whole, *halves]


@needs_vnni
def test_vectors_hardly_differ_and_belong_to_the_same_encoder(photos: list[Image.Image]) -> None:
    exact, narrow = BuiltinEncoder(), BuiltinEncoder(options=INT8)
    assert narrow.spec == exact.spec and narrow.graph_files[0] != exact.graph_files[0]
    one, other = exact.encode_images(photos), narrow.encode_images(photos)
    cosines = (one * other).sum(axis=1)
    assert cosines.min() > 0.97 and 0.985 < cosines.mean() < 0.9999, cosines
    np.testing.assert_allclose(np.linalg.norm(other, axis=1), 1, atol=1e-5)
    texts = exact.encode_queries(["cat", "cup", "person"])
    assert (other[:3] @ texts.T).argmax(axis=0).tolist() == [0, 1, 2]


@needs_vnni
def test_a_vector_does_not_depend_on_its_batch(photos: list[Image.Image]) -> None:
    encoder = BuiltinEncoder(options=INT8)
    pixels = np.stack([encoder.prepare_image(photo) for photo in photos])
    alone = np.concatenate([encoder.encode_prepared(row[None]) for row in pixels])
    np.testing.assert_array_equal(encoder.encode_prepared(pixels), alone)
    vectors, logits = encoder.vectors_and_logits(pixels)
    np.testing.assert_array_equal(vectors, alone)
    assert logits.shape == (len(photos), 1000)
    assert encoder.image_grid(pixels).shape[1:] == (352, 9, 9)


def test_without_vnni_it_stays_in_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(builtin, "machine", lambda cores: "an old processor, avx2")
    with caplog.at_level(logging.INFO):
        encoder = BuiltinEncoder(options=INT8)
    assert encoder.graph_files[0] == "image.onnx"
    assert "no VNNI" in caplog.text


def test_its_heads_are_those_of_the_graph_in_float32() -> None:
    """A file that was not made anew with `image.onnx` would read other weights there."""
    onnx = pytest.importorskip("onnx")
    exact = onnx.load(str(SHIPPED_WEIGHTS / "image.onnx"))
    stored = {tensor.name: tensor.raw_data for tensor in exact.graph.initializer}
    whole = (SHIPPED_WEIGHTS / "image.onnx").read_bytes()
    narrow = onnx.load(str(SHIPPED_WEIGHTS / "image_int8.onnx"), load_external_data=False)
    referred = 0
    for tensor in narrow.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place:
            referred += 1
            start, length = int(place["offset"]), int(place["length"])
            assert place["location"] == "image.onnx"
            assert whole[start : start + length] == stored[tensor.name], tensor.name
    assert referred >= 5


def test_an_index_remembers_it_and_holds_both(photos: list[Image.Image], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, photo in enumerate(photos[:3]):
        photo.save(tmp_path / "photos" / f"{number}.png")
    with Index.open(tmp_path / "index", create=True, encoder="builtin", options=INT8) as index:
        assert index.add(tmp_path / "photos").indexed == 3
    assert json.loads((tmp_path / "index" / "manifest.json").read_text())["model"] == "builtin+int8"
    photos[3].save(tmp_path / "photos" / "3.png")
    with Index.open(tmp_path / "index", options=EncoderOptions(precision="fp32")) as index:
        report = index.add(tmp_path / "photos")
        assert (report.indexed, report.unchanged) == (1, 3)
        nearest = [Path(hit.path).name for hit in index.search("cat")][:2]
        assert set(nearest) == {"0.png", "3.png"}, "the cat in int8, and its half in float32"
