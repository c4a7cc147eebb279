"""A small CLAP with random weights in the format of transformers, with a tokenizer made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("a", "dog", "rain", "the", "of", "sound", "music", "applause", "barking", "wind")


def save_clap(folder: Path, *, fused: bool = False, seed: int = 0) -> Path:
    """Saves model, feature extractor and tokenizer, as `save_pretrained` lays them out."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ClapConfig(
        text_config={**small, "vocab_size": len(WORDS) + 5, "max_position_embeddings": 40, "projection_dim": 16,
                     "type_vocab_size": 1, "pad_token_id": 1},
        audio_config={"spec_size": 256, "num_mel_bins": 64, "patch_embeds_hidden_size": 8, "depths": [1, 1],
                      "num_attention_heads": [1, 2], "hidden_size": 16, "window_size": 8, "patch_size": 4,
                      "patch_stride": [4, 4], "projection_dim": 16, "enable_fusion": fused, "num_classes": 4},
        projection_dim=16,
    )  # fmt: skip
    model = transformers.ClapModel(config).eval()
    with torch.no_grad():  # as made, all weights are so small that everything sounds the same
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    truncation = "fusion" if fused else "rand_trunc"
    transformers.ClapFeatureExtractor(truncation=truncation, padding="repeatpad").save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **special, "model_max_length": 38}))
    return folder
