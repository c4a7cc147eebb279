"""Dual encoders of transformers: small random models of the real classes, against what transformers computes itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsearch.core.errors import EncoderError, ModelMissing, VectorError
from mmsearch.core.extras import install_hint
from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.registry import canonical_name, is_present
from mmsearch.models.encoders.weights import file_digest
from tests.models.encoders.test_open_clip import PHOTOS, photo
from tests.support.dual_encoders import FAMILIES, save_dual_encoder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

OPTIONS = EncoderOptions(device="cpu")
TEXTS = ["a", "A photo of the Mountain lake", "", "x " * 200, "käse 山 湖 two dog", "two red dog"]


@pytest.fixture(scope="module", autouse=True)
def quiet_and_cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of this module alone, and no connection for anything that happens in it."""

    def refuse(*_: object) -> None:
        raise AssertionError("something opened a connection")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("caches")
        patch.setenv("MMSEARCH_CACHE", str(root / "mmsearch"))
        patch.setenv("HF_HUB_CACHE", str(root / "hub"))
        patch.setattr(socket.socket, "connect", refuse)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: save_dual_encoder(root / family, family) for family in FAMILIES}


def put_in_hub_cache(repo: str, directory: Path) -> Path:
    """Lays a model out as huggingface_hub does after a download."""
    folder = Path(os.environ["HF_HUB_CACHE"]) / ("models--" + repo.replace("/", "--"))
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("c" * 40)
    shutil.copytree(directory, folder / "snapshots" / ("c" * 40), dirs_exist_ok=True)
    return folder / "snapshots" / ("c" * 40)


def features(output: Any) -> np.ndarray:
    rows = output if torch.is_tensor(output) else output.pooler_output
    return torch.nn.functional.normalize(rows.float(), dim=-1).numpy()


def image_oracle(directory: Path, images: list[Image.Image]) -> np.ndarray:
    model = transformers.AutoModel.from_pretrained(directory).eval()
    pillow = {"use_fast": False} if transformers.__version__ < "5" else {"backend": "pil"}
    processor = transformers.AutoImageProcessor.from_pretrained(directory, **pillow)
    with torch.no_grad():
        return features(model.get_image_features(**processor(images=images, return_tensors="pt")))


def text_oracle(directory: Path, family: str, texts: list[str]) -> np.ndarray:
    """As the documentation of each family in transformers has it, one text at a time."""
    model = transformers.AutoModel.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    settings = {"clip": {"max_length": 12}, "chinese_clip": {"max_length": 52}}.get(
        family, {"padding": "max_length", "max_length": 10}
    )
    rows = []
    for text in texts:
        given = tokenizer(
            [text.lower() if family.startswith("siglip2") else text], truncation=True, return_tensors="pt", **settings
        )
        with torch.no_grad():
            inputs = {key: value for key, value in given.items() if key != "token_type_ids"}
            if family == "chinese_clip":  # get_text_features fails in some versions; the whole model has it right
                pixels = torch.zeros(1, 3, 32, 32)
                rows.append(features(model(pixel_values=pixels, **inputs).text_embeds)[0])
            else:
                rows.append(features(model.get_text_features(**inputs))[0])
    return np.stack(rows)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_encoded_as_transformers_encodes_them(family: str, saved: dict[str, Path]) -> None:
    encoder = open_encoder(str(saved[family]), EncoderOptions(device="cpu", batch_size=2))
    rows = encoder.encode_images(PHOTOS)
    assert rows.dtype == np.float32 and rows.shape == (len(PHOTOS), encoder.spec.dim)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    fitting = [picture for picture in PHOTOS if max(picture.size) < 12 * min(picture.size)]
    assert len(fitting) == len(PHOTOS) - 1
    expected = image_oracle(saved[family], fitting)
    assert cosines(rows[[picture in fitting for picture in PHOTOS]], expected).min() >= 0.99999
    assert (rows @ rows.T)[~np.eye(len(rows), dtype=bool)].min() < 0.99, "these weights tell pictures apart"


@pytest.mark.parametrize("family", FAMILIES)
def test_resizing_is_near_that_of_the_other_backend(family: str, saved: dict[str, Path]) -> None:
    """transformers takes torchvision's where it is installed."""
    encoder = open_encoder(str(saved[family]), OPTIONS)
    model = transformers.AutoModel.from_pretrained(saved[family]).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(saved[family])
    images = [photo(300, 200, 3), photo(90, 120, 4)]
    with torch.no_grad():
        expected = features(model.get_image_features(**processor(images=images, return_tensors="pt")))
    assert cosines(encoder.encode_images(images), expected).min() >= 0.9999


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_encoded_as_transformers_encodes_them(family: str, saved: dict[str, Path]) -> None:
    encoder = open_encoder(str(saved[family]), OPTIONS)
    rows = encoder.encode_texts(TEXTS)
    assert rows.dtype == np.float32 and rows.shape == (len(TEXTS), encoder.spec.dim)
    assert cosines(rows, text_oracle(saved[family], family, TEXTS)).min() >= 0.99999
    assert (rows @ rows.T)[~np.eye(len(rows), dtype=bool)].min() < 0.99, "these weights tell texts apart"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_does_not_depend_on_its_batch(family: str, saved: dict[str, Path]) -> None:
    encoder = open_encoder(str(saved[family]), OPTIONS)
    together = encoder.encode_texts(TEXTS), encoder.encode_images(PHOTOS)
    for number, text in enumerate(TEXTS):
        np.testing.assert_allclose(encoder.encode_texts([text])[0], together[0][number], atol=1e-5)
    for number, picture in enumerate(PHOTOS):
        np.testing.assert_allclose(encoder.encode_images([picture])[0], together[1][number], atol=1e-5)
    assert encoder.encode_texts([]).shape == (0, encoder.spec.dim)
    assert encoder.encode_images([]).shape == (0, encoder.spec.dim)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_spec_is_read_from_the_model(family: str, saved: dict[str, Path]) -> None:
    encoder = open_encoder(str(saved[family]), OPTIONS)
    spec = encoder.spec
    model = transformers.AutoModel.from_pretrained(saved[family])
    assert spec.name == f"local-dir:{saved[family]}"
    assert spec.digest == file_digest(saved[family] / "model.safetensors")
    assert spec.score_type == ("sigmoid" if family.startswith("siglip") else "cosine")
    assert spec.logit_scale == pytest.approx(float(model.logit_scale.detach().exp().item()))
    if spec.score_type == "sigmoid":
        assert spec.logit_bias == pytest.approx(float(model.logit_bias.detach().item()))
    limits = {"clip": 12, "chinese_clip": 52}
    assert encoder.max_text_tokens == limits.get(family, 10) and encoder.input_size == 32
    assert encoder.count_tokens("a photo") == {"clip": 4, "chinese_clip": 4}.get(family, 3)
    assert encoder.count_tokens("x " * 200) > 200


def test_what_preprocessing_says(saved: dict[str, Path]) -> None:
    said = {family: open_encoder(str(saved[family]), OPTIONS).spec.preprocessing for family in FAMILIES}
    assert said == {
        "clip": "32x32 of shortest 32 bicubic mean 0.48,0.45,0.4 std 0.26,0.26,0.27",
        "siglip": "32x32 squash bicubic mean 0.5,0.5,0.5 std 0.5,0.5,0.5",
        "siglip2": "up to 16 patches of 8 bilinear mean 0.5,0.5,0.5 std 0.5,0.5,0.5",
        "siglip2_fixed": "32x32 squash bicubic mean 0.5,0.5,0.5 std 0.5,0.5,0.5",
        "chinese_clip": "32x32 squash bicubic mean 0.48,0.45,0.4 std 0.26,0.26,0.27",
    }


def test_wrong_inputs_are_refused(saved: dict[str, Path]) -> None:
    encoder = open_encoder(str(saved["clip"]), OPTIONS)
    with pytest.raises(VectorError, match=r"expected \(n, 32, 32, 3\) uint8"):
        encoder.encode_prepared(np.zeros((2, 3, 32, 32), dtype=np.uint8))


def test_it_can_be_compiled(saved: dict[str, Path]) -> None:
    plain = open_encoder(str(saved["clip"]), OPTIONS)
    compiled = open_encoder(str(saved["clip"]), EncoderOptions(device="cpu", compile=True))
    assert "OptimizedModule" in type(compiled._image_encoder).__name__ or compiled._image_encoder is not (
        compiled.model.get_image_features
    )
    assert plain.spec == compiled.spec


def test_many_threads_get_the_same(saved: dict[str, Path]) -> None:
    encoder = open_encoder(str(saved["siglip"]), OPTIONS)
    expected = encoder.encode_texts(TEXTS)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(10):
            if encoder.count_tokens("a photo") != 3 or np.abs(encoder.encode_texts(TEXTS) - expected).max() > 1e-5:
                wrong.append("differs")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_from_the_cache_of_the_hub(saved: dict[str, Path]) -> None:
    assert canonical_name("hf:acme/tiny") == "hf:acme/tiny" and not is_present("hf:acme/tiny")
    with pytest.raises(ModelMissing, match="mmsearch models pull hf:acme/tiny"):
        open_encoder("hf:acme/tiny", OPTIONS)
    put_in_hub_cache("acme/tiny", saved["siglip"])
    assert is_present("hf:acme/tiny")
    encoder = open_encoder("hf:acme/tiny", OPTIONS)
    assert encoder.spec.name == "hf:acme/tiny"
    np.testing.assert_array_equal(
        encoder.encode_texts(["a dog"]), open_encoder(str(saved["siglip"]), OPTIONS).encode_texts(["a dog"])
    )
    views = open_encoder("hf:acme/tiny+views", OPTIONS)
    assert views.spec.name == "hf:acme/tiny+views" and views.encode_images(PHOTOS[:1]).shape == (1, encoder.spec.dim)


def test_weights_in_parts(tmp_path: Path) -> None:
    whole, parts = (save_dual_encoder(tmp_path / name, "clip", shards=name == "parts") for name in ("whole", "parts"))
    files = sorted(path.name for path in parts.glob("model-*.safetensors"))
    assert len(files) > 1
    ours, theirs = open_encoder(str(parts), OPTIONS), open_encoder(str(whole), OPTIONS)
    np.testing.assert_allclose(ours.encode_texts(TEXTS), theirs.encode_texts(TEXTS), atol=1e-6)
    assert ours.spec.digest != theirs.spec.digest
    before = ours.spec.digest
    assert open_encoder(str(parts), OPTIONS).spec.digest == before
    (parts / files[0]).unlink()
    with pytest.raises(ModelMissing, match="not all weights"):
        open_encoder(str(parts), OPTIONS)


@pytest.mark.parametrize(
    ("name", "said"),
    [("hf:", "does not name a model"), ("hf:tiny", "expected hf:ORG/NAME"), ("hf:a/b/c", "expected hf:ORG/NAME")],
)
def test_names_of_a_wrong_form(name: str, said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        open_encoder(name, OPTIONS)


def test_models_that_are_no_dual_encoders(tmp_path: Path, saved: dict[str, Path]) -> None:
    other = shutil.copytree(saved["clip"], tmp_path / "bert")
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(EncoderError, match=r"is a model of the type bert; expected one of clip, siglip"):
        open_encoder(str(other), OPTIONS)
    damaged = shutil.copytree(saved["clip"], tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(EncoderError, match="cannot be loaded from"):
        open_encoder(str(damaged), OPTIONS)


def test_without_the_package_one_sentence_says_what_to_install(
    saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelMissing, match=re.escape(f"needs the package transformers: {install_hint('hf')}")):
        open_encoder(str(saved["clip"]), OPTIONS)


@pytest.mark.slow
def test_on_the_command_line_offline(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, picture in enumerate(PHOTOS[:3]):
        picture.save(folder / f"{number}.png")
    put_in_hub_cache("acme/command", saved["chinese_clip"])
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "MMSEARCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path.cwd()),
    }  # fmt: skip

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mmsearch", *words], env=environment, capture_output=True, text=True, check=False
        )

    index = str(tmp_path / "index")
    made = run("index", str(folder), "--index", index, "--model", "hf:acme/command", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads((tmp_path / "index" / "manifest.json").read_text())["model"] == "hf:acme/command"
    asked = run("query", "a photo", "--index", index, "--json", "-k", "3")
    assert asked.returncode == 0, asked.stderr
    rows = [json.loads(line) for line in asked.stdout.splitlines()]
    scores = open_encoder("hf:acme/command", OPTIONS)
    expected = scores.encode_images(PHOTOS[:3]) @ scores.encode_texts(["a photo"])[0]
    names = [Path(row["path"]).stem for row in rows if "path" in row]
    assert names == [str(number) for number in np.argsort(-expected)]
    assert "Loading weights" not in asked.stderr + made.stderr
