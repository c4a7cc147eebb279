"""Small dual encoders with random weights in the format of transformers, with tokenizers made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

FAMILIES = ("clip", "siglip", "siglip2", "siglip2_fixed", "chinese_clip")
"""``siglip2`` keeps aspect ratios (NaFlex); ``siglip2_fixed`` has the class of SigLIP, as on the hub."""
WORDS = (
    "a",
    "photo",
    "of",
    "the",
    "mountain",
    "lake",
    "dog",
    "cat",
    "x",
    "red",
    "blue",
    "two",
    "käse",
    "山",
    "湖",
    "狗",
)
_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
           "image_size": 32, "patch_size": 8}  # fmt: skip
_TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def save_dual_encoder(folder: Path, family: str, *, shards: bool = False) -> Path:
    """Saves a model of a family, its image processor and its tokenizer, as `save_pretrained` lays them out."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    torch.manual_seed(len(family))
    model = _model(transformers, family)
    with torch.no_grad():  # as made, all weights are so small that every image looks the same
        for parameter in model.parameters():
            if parameter.dim():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, **({"max_shard_size": "40KB"} if shards else {}))
    (folder / "preprocessor_config.json").write_text(json.dumps(_preprocessor(family)))
    _save_tokenizer(folder, family)
    return folder


def _model(transformers: Any, family: str) -> Any:
    vocabulary = {"vocab_size": len(WORDS) + 8}
    if family == "clip":
        text = {**_TEXT, **vocabulary, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2,
                "pad_token_id": 2, "projection_dim": 16}  # fmt: skip
        config = transformers.CLIPConfig(
            text_config=text, vision_config={**_VISION, "projection_dim": 16}, projection_dim=16
        )
        return transformers.CLIPModel(config).eval()
    if family in ("siglip", "siglip2_fixed"):
        text = {**_TEXT, **vocabulary, "max_position_embeddings": 10, "projection_size": 32}
        return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=_VISION)).eval()
    if family == "siglip2":
        vision = {key: value for key, value in _VISION.items() if key != "image_size"}
        text = {**_TEXT, **vocabulary, "max_position_embeddings": 10, "projection_size": 32}
        config = transformers.Siglip2Config(text_config=text, vision_config={**vision, "num_patches": 16})
        return transformers.Siglip2Model(config).eval()
    text = {**_TEXT, **vocabulary, "max_position_embeddings": 64, "pad_token_id": 0, "type_vocab_size": 2}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=16)
    return transformers.ChineseCLIPModel(config).eval()


def _preprocessor(family: str) -> dict[str, Any]:
    common = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
    half = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    if family == "clip":
        return {**common, "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32},
                "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "resample": 3,
                "image_mean": [0.48, 0.45, 0.40], "image_std": [0.26, 0.26, 0.27]}  # fmt: skip
    if family == "siglip2":
        return {**common, **half, "image_processor_type": "Siglip2ImageProcessor", "patch_size": 8,
                "max_num_patches": 16, "resample": 2}  # fmt: skip
    if family == "chinese_clip":
        return {**common, "image_processor_type": "ChineseCLIPImageProcessor", "size": {"height": 32, "width": 32},
                "do_center_crop": False, "resample": 3, "image_mean": [0.48, 0.45, 0.40],
                "image_std": [0.26, 0.26, 0.27]}  # fmt: skip
    return {**common, **half, "image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32},
            "resample": 3}  # fmt: skip


def _save_tokenizer(folder: Path, family: str) -> None:
    special = {
        "clip": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"},
        "chinese_clip": {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"},
    }.get(family, {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"})
    first = {"clip": ["<unk>", "<s>", "</s>"], "chinese_clip": ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]}
    words = [*first.get(family, ["<pad>", "</s>", "<unk>"]), *WORDS]
    tokenizer = tokenizers.Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, special["unk_token"])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    frame = {"clip": "<s> $A </s>", "chinese_clip": "[CLS] $A [SEP]"}.get(family, "$A </s>")
    marks = [(mark, words.index(mark)) for mark in frame.split() if mark != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=frame, special_tokens=marks)
    if family == "clip":
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(folder / "tokenizer.json"))
    inputs = ["input_ids"] if family.startswith("siglip") else ["input_ids", "attention_mask"]
    import transformers

    gemma = "Siglip2Tokenizer" if hasattr(transformers, "Siglip2Tokenizer") else "GemmaTokenizer"
    class_ = gemma if family.startswith("siglip2") else "PreTrainedTokenizerFast"
    config = {"tokenizer_class": class_, "model_input_names": inputs, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
