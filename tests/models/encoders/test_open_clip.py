"""The open_clip encoder on tiny models with random weights: the oracle is open_clip itself."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import models, pre_tokenizers, processors

from mmsearch.core.errors import EncoderError, ModelMissing, VectorError
from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.exported import ExportedEncoder
from mmsearch.models.encoders.open_clip import _fuse, load_model
from mmsearch.models.encoders.open_clip_files import locate
from mmsearch.models.encoders.text_export import TEXT_EXPORTS, export_text_encoder, open_text_encoder
from mmsearch.models.encoders.tokenizer import ClipTokenizer, HubTokenizer, open_tokenizer

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
SIGLIP = {
    "embed_dim": 24,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 48, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 64,
        "hf_tokenizer_name": "acme/words",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 64,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}
SQUASH = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash"}
EOS = {**CLIP["text_cfg"], "pool_type": "eos", "eos_id": 49407, "context_length": 20}
TEXTS = ["a", "a photo of a mountain lake", "", "x " * 200, "Käse & 日本 🎉"]


def save_model(directory: Path, config: dict[str, Any], preprocess: dict[str, Any] | None = None) -> Path:
    """Saves a model with random weights in open_clip's local format."""
    directory.mkdir(parents=True)
    torch.manual_seed(len(str(config)))
    content = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
    (directory / "open_clip_config.json").write_text(json.dumps(content))
    if "hf_tokenizer_name" in config["text_cfg"]:
        save_tokenizer(directory)
    model = open_clip.create_model(f"local-dir:{directory}", load_weights=False)
    torch.save(model.state_dict(), directory / "open_clip_pytorch_model.bin")
    return directory


def save_tokenizer(directory: Path) -> None:
    """A tokenizer.json of whole words, with an end and a padding token."""
    words = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "the", "mountain", "lake", "dog", "cat", "x", "käse"]
    tokenizer = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "<pad>"}))


@pytest.fixture(scope="module", autouse=True)
def quiet_and_cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of this module alone, and no connection for anything that happens in it."""

    def refuse(*_: object) -> None:
        raise AssertionError("something opened a connection")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of several, more than the work on such small models is lost by waiting
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("caches")
        patch.setenv("MMSEARCH_CACHE", str(root / "mmsearch"))
        patch.setenv("HF_HUB_CACHE", str(root / "hub"))
        patch.setattr(socket.socket, "connect", refuse)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "clip", CLIP)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "siglip", SIGLIP, SQUASH)


@pytest.fixture(scope="module")
def clip_export(clip: Path) -> Path:
    directory = export_text_encoder(open_encoder(str(clip), EncoderOptions(device="cpu")))
    assert directory is not None
    return directory


def oracle(directory: Path) -> tuple[Any, Callable[[Image.Image], Any]]:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{directory}")
    return model.eval(), transform


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with noise: resizing differs visibly between methods."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 5), np.cos(y / 7), np.sin((x + y) / 11)], axis=-1) * 90 + 128
    noise = np.random.default_rng(seed).normal(0, 12, waves.shape)
    return Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8))


PHOTOS = [photo(*size, seed=i) for i, size in enumerate([(32, 32), (100, 60), (60, 100), (33, 400), (7, 5)])]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_images_are_encoded_as_open_clip_encodes_them(name: str, request: pytest.FixtureRequest):
    directory = request.getfixturevalue(name)
    encoder = open_encoder(str(directory), EncoderOptions(device="cpu", batch_size=2))
    model, transform = oracle(directory)
    with torch.no_grad():
        pixels = torch.stack([transform(image) for image in PHOTOS])
        expected = model.encode_image(pixels, normalize=True).numpy()
    rows = encoder.encode_images(PHOTOS)
    assert rows.dtype == np.float32 and rows.shape == (len(PHOTOS), encoder.spec.dim)
    np.testing.assert_allclose(rows, expected, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preparation_is_the_models_own_transform(mode: str, interpolation: str, tmp_path: Path):
    preprocess = {
        "resize_mode": mode,
        "interpolation": interpolation,
        "mean": [0.1, 0.2, 0.3],
        "fill_color": 9,
    }
    directory = save_model(tmp_path / mode, CLIP, preprocess)
    encoder = open_encoder(str(directory), EncoderOptions(device="cpu"))
    _, transform = oracle(directory)
    std = np.array(open_clip.OPENAI_DATASET_STD)
    for image in PHOTOS:
        prepared = encoder.prepare_image(image)
        assert prepared.shape == (32, 32, 3) and prepared.dtype == np.uint8
        normalised = (prepared / 255 - [0.1, 0.2, 0.3]) / std
        np.testing.assert_allclose(normalised.transpose(2, 0, 1), transform(image).numpy(), atol=1e-5)
    assert mode in encoder.spec.preprocessing and interpolation in encoder.spec.preprocessing


def test_a_strip_of_an_image_costs_no_memory_and_changes_little(clip: Path):
    encoder = open_encoder(str(clip), EncoderOptions(device="cpu"))
    _, transform = oracle(clip)
    strip = photo(2000, 20)
    std, mean = np.array(open_clip.OPENAI_DATASET_STD), np.array(open_clip.OPENAI_DATASET_MEAN)
    theirs = transform(strip).numpy().transpose(1, 2, 0) * std + mean
    assert np.abs(encoder.prepare_image(strip) / 255 - theirs).mean() < 0.02
    assert encoder.prepare_image(Image.new("RGB", (60_000, 1))).shape == (32, 32, 3)


@pytest.mark.parametrize("text_cfg", [CLIP["text_cfg"], EOS, {**CLIP["text_cfg"], "no_causal_mask": True}])
@pytest.mark.parametrize("custom", [False, True])
def test_texts_are_encoded_as_open_clip_encodes_them(text_cfg: dict[str, Any], custom: bool, tmp_path: Path):
    directory = save_model(tmp_path / "model", {**CLIP, "text_cfg": text_cfg, "custom_text": custom})
    encoder = open_encoder(str(directory), EncoderOptions(device="cpu", batch_size=2))
    model, _ = oracle(directory)
    tokenize = open_clip.get_tokenizer(f"local-dir:{directory}")
    with torch.no_grad():
        expected = model.encode_text(tokenize(TEXTS), normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, atol=2e-5)


def test_the_spec_is_the_identity_of_the_weights(clip: Path, siglip: Path):
    spec = open_encoder(str(clip)).spec
    assert spec.name == f"local-dir:{clip}"
    content = (clip / "open_clip_pytorch_model.bin").read_bytes()
    assert spec.digest == hashlib.sha256(content).hexdigest()
    assert (spec.dim, spec.score_type, spec.logit_bias) == (32, "cosine", None)
    assert spec.logit_scale == pytest.approx(1 / 0.07)
    assert spec.preprocessing.startswith("32x32 shortest bicubic")
    spec = open_encoder(f"local-dir:{siglip}").spec
    assert (spec.dim, spec.score_type, spec.logit_bias) == (24, "sigmoid", -10)
    assert spec.preprocessing == "48x48 squash bicubic mean 0.5,0.5,0.5 std 0.5,0.5,0.5"


def test_nothing_in_nothing_out(clip: Path):
    encoder = open_encoder(str(clip))
    assert encoder.encode_texts([]).shape == encoder.encode_images([]).shape == (0, 32)


def test_counting_tokens(clip: Path, siglip: Path):
    assert open_encoder(str(clip)).count_tokens("a photo of a dog") == 7
    encoder = open_encoder(str(siglip))
    assert (encoder.count_tokens("a photo of the dog!"), encoder.max_text_tokens) == (6, 16)


def test_inputs_of_another_shape_are_refused(clip: Path):
    with pytest.raises(VectorError, match=r"\(2, 48, 48, 3\).*expected \(n, 32, 32, 3\) uint8"):
        open_encoder(str(clip)).encode_prepared(np.zeros((2, 48, 48, 3), dtype=np.uint8))


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("x"), RuntimeError("MPS backend out of memory")])
def test_the_batch_is_halved_when_memory_runs_out(clip: Path, error: Exception, monkeypatch: pytest.MonkeyPatch):
    encoder = open_encoder(str(clip), EncoderOptions(device="cpu", batch_size=16))
    images = [photo(40, 40, seed) for seed in range(21)]
    expected = encoder.encode_images(images)
    whole, sizes, room = encoder._image_encoder, [], 5

    def image_encoder(pixels: Any) -> Any:
        sizes.append(len(pixels))
        if len(pixels) > room:
            raise error
        return whole(pixels)

    monkeypatch.setattr(encoder, "_image_encoder", image_encoder)
    prepared = np.stack([encoder.prepare_image(image) for image in images])
    np.testing.assert_allclose(encoder.encode_prepared(prepared), expected, atol=1e-6)
    assert sizes == [16, 8, 4, 4, 4, 4, 4, 1]
    assert encoder.batch_size == 4
    room = 0
    with pytest.raises(EncoderError, match="even for one input"):
        encoder.encode_prepared(prepared[:3])


def test_other_failures_of_the_model_are_not_taken_for_that(clip: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = open_encoder(str(clip), EncoderOptions(device="cpu"))

    def image_encoder(pixels: Any) -> Any:
        raise RuntimeError("kernel is on holiday")

    monkeypatch.setattr(encoder, "_image_encoder", image_encoder)
    with pytest.raises(EncoderError, match="kernel is on holiday"):
        encoder.encode_images(PHOTOS[:1])
    assert encoder.batch_size == 16


def test_branches_of_mobileclip_are_merged_without_changing_the_function(tmp_path: Path):
    vision = {"timm_model_name": "fastvit_t8", "timm_pool": "avg", "timm_proj": None, "image_size": 64}
    directory = save_model(tmp_path / "mobile", {**CLIP, "vision_cfg": vision, "custom_text": True})
    model, _ = load_model(locate(str(directory)))
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        branches, before = len(list(model.visual.parameters())), model.encode_image(pixels, normalize=True)
        after = _fuse(model).encode_image(pixels, normalize=True)
    assert len(list(model.visual.parameters())) < branches
    np.testing.assert_allclose(after.numpy(), before.numpy(), atol=1e-4)


def test_weights_that_do_not_fit_their_configuration(clip: Path, tmp_path: Path):
    other = save_model(tmp_path / "other", {**CLIP, "embed_dim": 16})
    (other / "open_clip_pytorch_model.bin").write_bytes((clip / "open_clip_pytorch_model.bin").read_bytes())
    with pytest.raises(EncoderError, match=r"cannot be loaded from .*size mismatch"):
        open_encoder(str(other))
    (other / "open_clip_pytorch_model.bin").write_bytes(b"not weights")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        open_encoder(str(other))


def test_a_tokenizer_that_is_not_here(siglip: Path, tmp_path: Path):
    directory = save_model(tmp_path / "siglip", SIGLIP)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"holds no tokenizer\.json"):
        open_encoder(str(directory))


def test_devices_that_are_not_here(clip: Path):
    for device in ("cuda", "mps"):
        if not getattr(torch, device).is_available():
            with pytest.raises(EncoderError, match=f"finds no {device} device"):
                open_encoder(str(clip), EncoderOptions(device=device))  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_half_precision_on_a_gpu_is_close(name: str, request: pytest.FixtureRequest):
    directory = str(request.getfixturevalue(name))
    gpu, cpu = (open_encoder(directory, EncoderOptions(device=device)) for device in ("cuda", "cpu"))
    assert gpu.spec == cpu.spec
    assert (gpu.encode_images(PHOTOS) * cpu.encode_images(PHOTOS)).sum(axis=1).min() > 0.999
    assert (gpu.encode_texts(TEXTS) * cpu.encode_texts(TEXTS)).sum(axis=1).min() > 0.999


@pytest.fixture
def registered(clip: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A tiny architecture with a pretrained tag, known to open_clip and downloaded to the hub cache."""
    from open_clip import factory, pretrained

    config = {**CLIP, "quick_gelu": False}
    place = pretrained._pcfg(hf_hub="acme/tiny/", quick_gelu=True, mean=(0.5, 0.5, 0.5))
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", config)
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny", {"v1": place})
    snapshot = Path(os.environ["HF_HUB_CACHE"]) / "models--acme--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True, exist_ok=True)
    (snapshot.parents[1] / "refs").mkdir(exist_ok=True)
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    for file in ("open_clip_pytorch_model.bin", "open_clip_config.json"):
        (snapshot / file).unlink(missing_ok=True)
        (snapshot / file).symlink_to(clip / file)
    yield "tiny/v1"


def test_a_pretrained_tag_is_read_from_the_hub_cache(registered: str, clip: Path):
    encoder = open_encoder(registered, EncoderOptions(device="cpu"))
    assert encoder.spec.name == "tiny/v1"
    assert "mean 0.5,0.5,0.5" in encoder.spec.preprocessing
    assert encoder.spec.digest == open_encoder(str(clip)).spec.digest
    # The tag was trained with QuickGELU: not the function that the same weights are without it.
    assert not np.allclose(encoder.encode_texts(["a dog"]), open_encoder(str(clip)).encode_texts(["a dog"]))
    assert open_encoder("hf-hub:acme/tiny").spec.name == "hf-hub:acme/tiny"


def test_missing_weights_of_a_known_model():
    with pytest.raises(ModelMissing, match="mmsearch models pull ViT-B-32/laion2b_s34b_b79k"):
        open_encoder("ViT-B-32/laion2b_s34b_b79k")


def test_the_exported_text_encoder_equals_the_model(clip: Path, clip_export: Path):
    encoder = open_encoder(str(clip), texts_only=True)
    assert isinstance(encoder, ExportedEncoder)
    whole = open_encoder(str(clip), EncoderOptions(device="cpu"))
    assert encoder.spec == whole.spec and encoder.input_size == whole.input_size
    assert encoder.encode_texts([]).shape == (0, 32)
    texts = TEXTS * 9
    assert (encoder.encode_texts(texts) * whole.encode_texts(texts)).sum(axis=1).min() >= 0.9999
    assert encoder.count_tokens("a photo of a dog") == 7
    np.testing.assert_allclose(encoder.encode_images(PHOTOS), whole.encode_images(PHOTOS), atol=1e-6)


def test_the_exported_text_encoder_of_a_sigmoid_model(siglip: Path):
    first = open_encoder(str(siglip), EncoderOptions(device="cpu"), texts_only=True)
    second = open_encoder(str(siglip), texts_only=True)
    assert not isinstance(first, ExportedEncoder) and isinstance(second, ExportedEncoder)
    assert second.spec == first.spec
    assert (second.encode_texts(TEXTS) * first.encode_texts(TEXTS)).sum(axis=1).min() >= 0.9999


def test_a_text_query_on_an_exported_text_encoder_imports_neither_torch_nor_open_clip(clip: Path, clip_export: Path):
    code = (
        "import sys; from mmsearch.models.encoders import open_encoder\n"
        f"print(open_encoder({str(clip)!r}, texts_only=True).encode_texts(['a photo of a dog']).shape)\n"
        "print([m for m in ('torch', 'open_clip', 'transformers', 'ftfy', 'regex') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines() == ["(1, 32)", "[]"]


def test_an_export_that_fails_is_not_tried_at_every_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    directory = save_model(tmp_path / "model", {**CLIP, "embed_dim": 8})
    tried = []

    def export(*_: object, **__: object) -> None:
        tried.append(1)
        raise ValueError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", export)
    for _ in range(2):
        encoder = open_encoder(str(directory), texts_only=True)
        assert encoder.encode_texts(["a dog"]).shape == (1, 8)
    assert tried == [1]
    assert not list(TEXT_EXPORTS.directory(locate(str(directory))).parent.glob("new-*"))


def test_other_weights_or_a_damaged_export_are_never_used(clip: Path, clip_export: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in clip.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert open_text_encoder(locate(str(clip))) is not None
    assert TEXT_EXPORTS.directory(locate(str(copy))) != clip_export
    (copy / "open_clip_pytorch_model.bin").write_bytes(b"other weights")
    assert open_text_encoder(locate(str(copy))) is None
    onnx = clip_export / "tower.onnx"
    content = onnx.read_bytes()
    onnx.write_bytes(content[:1000])
    try:
        assert open_text_encoder(locate(str(clip))) is None
    finally:
        onnx.write_bytes(content)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text(st.characters(max_codepoint=127), max_size=60) | st.sampled_from(TEXTS))
def test_the_tokenizer_of_clip_is_that_of_open_clip(text: str):
    for clean in ("lower", "canonicalize", "whitespace"):
        theirs = _open_clip_tokenizer(clean)([text]).numpy()
        np.testing.assert_array_equal(_tokenizer(clean)([text]), theirs)


@pytest.mark.parametrize(
    "text",
    ["don't WE'LL I'm", "<start_of_text> <END_OF_TEXT>x", "&amp;lt; &#39;",
     "Ａｂｃ ﬁ", "a\x00b\x1fc\x85d\u2028e",
     "mojibake: schÃ¶n", "x" * 3000, "½ ² Ⅷ ٣", "ſ 'S K", "👩‍👩‍👧‍👦🏳️‍🌈", "\ud800 lone", "_a_b_ c.d"],
)  # fmt: skip
def test_the_tokenizer_of_clip_on_hard_cases(text: str):
    if text.isascii() or "\ud800" not in text:
        np.testing.assert_array_equal(_tokenizer("lower")([text]), _open_clip_tokenizer("lower")([text]).numpy())
    assert _tokenizer("lower").count(text) >= 2


@functools.cache
def _tokenizer(clean: str) -> ClipTokenizer:
    return ClipTokenizer.from_open_clip(clean=clean)


@functools.cache
def _open_clip_tokenizer(clean: str) -> Any:
    return open_clip.tokenizer.SimpleTokenizer(clean=clean)


def test_a_saved_tokenizer_is_the_same(tmp_path: Path, siglip: Path):
    for number, tokenizer in enumerate((ClipTokenizer.from_open_clip(9), HubTokenizer.from_directory(siglip, 9))):
        directory = tmp_path / str(number)
        directory.mkdir()
        settings_ = tokenizer.save(directory)
        assert settings_ is not None
        again = open_tokenizer(directory, json.loads(json.dumps(settings_)))
        np.testing.assert_array_equal(again(TEXTS), tokenizer(TEXTS))
        assert [again.count(text) for text in TEXTS] == [tokenizer.count(text) for text in TEXTS]


@pytest.mark.parametrize("options", [{}, {"clean": "canonicalize"}, {"strip_sep_token": True}])
def test_a_tokenizer_of_the_hub_is_that_of_transformers(options: dict[str, Any], tmp_path: Path):
    pytest.importorskip("transformers")
    save_tokenizer(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sep_token": "</s>"}))
    theirs = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=8, **options)
    ours = HubTokenizer.from_directory(tmp_path, 8, **options)
    texts = [*TEXTS, "The  dog, in a lake.", "cat " * 7, "cat " * 8]
    np.testing.assert_array_equal(ours(texts), theirs(texts).numpy())


@pytest.mark.slow
def test_torchvision_for_cuda_beside_torch_for_the_cpu(tmp_path: Path):
    """As PyPI installs them: the compiled part of torchvision does not load, its transforms must."""
    import torchvision

    source, fake = Path(torchvision.__file__).parent, tmp_path / "torchvision"
    fake.mkdir()
    for entry in source.iterdir():
        if entry.name != "__pycache__" and not entry.name.endswith(".so"):
            (fake / entry.name).symlink_to(entry)
    (fake / "_C.so").write_bytes(b"needs libcudart")
    without = "import torch; torch.version.cuda = None; import torchvision"
    with_ = (
        "import torch; torch.version.cuda = None\n"
        "from mmsearch.models.encoders.open_clip import import_open_clip\n"
        "import_open_clip(); import torchvision; print(torchvision.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) for code in (without, with_)]
    (_, failure), (said, _) = (process.communicate() for process in processes)
    assert "torchvision::nms does not exist" in failure
    assert said.strip() == str(fake / "__init__.py")


@pytest.mark.slow
@pytest.mark.timeout(900)  # the compiler has its own idea of how long this takes
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_a_compiled_encoder_gives_the_same_rows(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of full batches and of the last one, which is smaller."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    plain, compiled = (
        open_encoder(str(clip), EncoderOptions(device="cpu", batch_size=3, compile=compile_))
        for compile_ in (False, True)
    )
    np.testing.assert_allclose(compiled.encode_prepared(pixels), plain.encode_prepared(pixels), atol=1e-4)
