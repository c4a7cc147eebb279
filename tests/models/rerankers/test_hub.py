"""BLIP and CoCa as rerankers: small random models of the real classes, against what their libraries compute."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from PIL import Image

from mmsearch.api import Index
from mmsearch.core.errors import EncoderError, ModelMissing, VectorError
from mmsearch.core.extras import install_hint
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.rerankers import Reranker, open_reranker
from mmsearch.models.rerankers.registry import looks_like_a_name
from tests.support.colours import COLOURS, ColourEncoder, save_colour

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "two", "things", *COLOURS]
COCA = {
    "embed_dim": 16, "custom_text": True,
    "multimodal_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2, "dim_head": 8},
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8,
                   "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2,
                 "embed_cls": True, "output_tokens": True},
}  # fmt: skip
OPTIONS = EncoderOptions(device="cpu", threads=1)
TEXTS = ("a red photo", "blue", "two green things of violet")


@pytest.fixture(scope="module", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
        yield


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("blip")
    torch.manual_seed(0)
    text = {"vocab_size": len(WORDS), "hidden_size": 32, "encoder_hidden_size": 24, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 8, "pad_token_id": 0,
            "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}  # fmt: skip
    vision = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    config = transformers.BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=16)
    model = transformers.BlipForImageTextRetrieval(config)
    with torch.no_grad():  # as made, all of them are so small that every image looks the same
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(folder)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, "[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    words.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def coca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coca")
    torch.manual_seed(0)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": COCA, "preprocess_cfg": {}}))
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    with torch.no_grad():
        made.text_decoder.text_projection.normal_()  # open_clip leaves it as memory was
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    torch.save(made.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0)
    made = []
    for colour in list(COLOURS.values())[:5]:
        pixels = noise.integers(0, 120, (40, 50, 3)) + np.array(colour) // 2
        made.append(Image.fromarray(pixels.astype(np.uint8)))
    return made


def test_blip_scores_are_those_of_transformers(blip: Path) -> None:
    transformers = pytest.importorskip("transformers")
    reranker = open_reranker(str(blip), OPTIONS)
    assert reranker.spec.token_shape == (17, 24)
    model = transformers.BlipForImageTextRetrieval.from_pretrained(blip).eval()
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    for text in TEXTS:
        expected = []
        for picture in pictures():
            pixels = (np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC)) / 255 - mean) / std
            ids = [2, *(WORDS.index(word) for word in text.split()), 3]
            with torch.no_grad():
                logits = model(
                    input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                    pixel_values=torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32),
                ).itm_score  # fmt: skip
            expected.append(float(logits[0, 1] - logits[0, 0]))
        assert np.std(expected) > 1e-3
        np.testing.assert_allclose(reranker.score(text, pictures()), expected, atol=5e-3)
    assert reranker.score_tokens(" ".join(["red"] * 50), reranker.image_tokens(pictures())).shape == (5,)


def test_coca_scores_are_the_likelihoods_of_captions(coca: Path) -> None:
    reranker = open_reranker(str(coca), OPTIONS)
    model = open_clip.create_model(f"local-dir:{coca}", require_pretrained=True).eval()
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg), False
    )
    tokenizer = open_clip.get_tokenizer(f"local-dir:{coca}")
    for text in TEXTS:
        expected = []
        for picture in pictures():
            with torch.no_grad():
                found = model(transform(picture)[None], tokenizer([text]))
            logs = found["logits"][0].log_softmax(-1)
            labels = found["labels"][0].tolist()
            words = [float(logs[place, label]) for place, label in enumerate(labels) if label != 0]
            expected.append(sum(words) / len(words))
        assert np.std(expected) > 1e-4
        np.testing.assert_allclose(reranker.score(text, pictures()), expected, atol=2e-3)


@pytest.mark.parametrize("kind", ["blip", "coca"])
def test_they_keep_the_contract(kind: str, request: pytest.FixtureRequest) -> None:
    reranker: Reranker = open_reranker(str(request.getfixturevalue(kind)), OPTIONS)
    tokens = reranker.image_tokens(pictures())
    assert tokens.dtype == np.float16 and tokens.shape == (5, *reranker.spec.token_shape)
    scores = reranker.score_tokens("a red photo", tokens)
    alone = [reranker.score_tokens("a red photo", tokens[i : i + 1])[0] for i in range(len(tokens))]
    np.testing.assert_allclose(scores, alone, atol=1e-4)
    assert reranker.score("red", []).shape == (0,) and len(reranker.spec.digest) == 64
    assert reranker.cost() is reranker.cost() and reranker.cost().look > 0 and reranker.cost().score > 0
    with pytest.raises(VectorError, match="token"):
        reranker.score_tokens("red", tokens[:, 1:])


def test_a_hub_model_reranks_an_index(coca: Path, tmp_path: Path) -> None:
    for number, colour in enumerate(COLOURS):
        save_colour(tmp_path / "photos" / f"{colour}.png", colour, seed=number)
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        index.add(tmp_path / "photos")
        hits = index.search("a red photo", k=8, reranker=str(coca), words=False)
        assert len(hits) == 8 and sum("rerank" in hit.parts for hit in hits) > 4
        assert index.reranker(str(coca)) is index.reranker(str(coca))
        batch = index.search_many(["a red photo", "blue"], k=8, reranker=str(coca), words=False)
        assert batch[0] == hits


def test_a_model_in_the_hub_cache_is_found(coca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelMissing, match=r"weights of someone/coca-small are not on this machine"):
        open_reranker("hf-hub:someone/coca-small", OPTIONS)
    with pytest.raises(ModelMissing, match=r"weights of some/blip are not on this machine, and .* never fetches"):
        open_reranker("some/blip", OPTIONS)
    folder = tmp_path / "models--someone--coca-small"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / "abc").symlink_to(coca)
    found = open_reranker("hf-hub:someone/coca-small", OPTIONS)
    assert found.spec.digest == open_reranker(str(coca), OPTIONS).spec.digest


def test_what_is_missing_is_said_in_a_sentence(blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ModelMissing, match=re.escape(f"needs the package transformers: {install_hint('hf')}")):
            open_reranker(str(blip), OPTIONS)
    (tmp_path / "config.json").write_bytes((blip / "config.json").read_bytes())
    with pytest.raises(ModelMissing, match=r"holds no model\.safetensors"):
        open_reranker(str(tmp_path), OPTIONS)
    (tmp_path / "tokenizer.json").write_bytes((blip / "tokenizer.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        open_reranker(str(tmp_path), OPTIONS)
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(EncoderError, match=r"is no reranker \(BertModel\)"):
        open_reranker(str(tmp_path), OPTIONS)
    with pytest.raises(EncoderError, match="no reranker 'nonsense'"):
        open_reranker("nonsense", OPTIONS)


def test_an_open_clip_model_without_a_decoder_is_refused(tmp_path: Path) -> None:
    config = {"model_cfg": {key: COCA[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="is no reranker"):
        open_reranker(str(tmp_path), OPTIONS)


@pytest.mark.parametrize(("text", "expected"), [
    ("builtin", True), ("hf-hub:a/b", True), ("Salesforce/blip-itm-base-coco", True), ("coca_ViT-B-32/laion2b", True),
    (str(Path(__file__).parent), True), ("a dog", False), ("-k", False), ("", False), ("dog", False),
])  # fmt: skip
def test_what_can_be_a_name(text: str, expected: bool) -> None:
    assert looks_like_a_name(text) is expected
