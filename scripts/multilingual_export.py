"""The multilingual text encoder as the files that ship: ``multilingual.onnx`` and ``multilingual_pieces.npz``.

The matrices of the layers that did not learn and the table of words keep the 4 bits that their source has, in the graph
by the operator ``MatMulNBits`` of ONNX Runtime and by taking the rows apart that are looked up. What is learned is
stored in 8 bits, but for two matrices of the head that lose little by 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from multilingual_e5 import BLOCK, NAMES, Source
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from mmsearch.training.builtin_export import export_graph
from mmsearch.training.builtin_modules import WIDTH, Layer, attention_bias, pooled, unit
from mmsearch.training.onnx_weights import narrow_convolutions, narrow_matrices, read_tensors, store_half

POSITIONS = 96
OPEN = 4
"""Last layers that learn."""
READ = 3
"""The means of the tokens after so many last layers are what the learned part reads."""


class MultilingualNet(nn.Module):
    """Token ids to what `mmsearch.training.builtin_modules.TextNet.vectors` makes of a text: the layers of
    multilingual-e5-small, then a ``head`` that reads the means of its tokens after its last layers and gives both
    halves of the space side by side, the first ``joint`` dimensions and the rest.
    """

    def __init__(self, source: Source, pieces: list[int], head: nn.Module, joint: int, gate: dict[str, Any]) -> None:
        super().__init__()
        steps, scale = source.blocks("emb.word")
        steps = steps.reshape(-1, WIDTH // BLOCK, BLOCK)[pieces].astype(np.uint8) + 8 & 15
        half = BLOCK // 2
        self.words = nn.Buffer(torch.from_numpy(steps[..., :half] | (steps[..., half:] << 4)))
        self.word_scale = nn.Buffer(torch.from_numpy(scale.reshape(-1, WIDTH // BLOCK)[pieces].copy()))
        kinds = source.tensor("emb.type").reshape(-1, WIDTH)
        self.positions = nn.Parameter(
            torch.from_numpy(source.tensor("emb.pos").reshape(-1, WIDTH)[:POSITIONS] + kinds[0])
        )
        self.norm = nn.LayerNorm(WIDTH, 1e-12)
        self.norm.load_state_dict({"weight": _flat(source, "emb.ln.w"), "bias": _flat(source, "emb.ln.b")})
        self.layers = nn.ModuleList(source_layer(source, number) for number in range(source.layers))
        self.head, self.joint = head, joint
        self.gate, self.gate_bias = nn.Buffer(gate["weight"]), nn.Buffer(gate["bias"])
        self.shares: tuple[float, float] = gate["shares"]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(n, length) int64 both, to (n, dim) of length 1."""
        return self.from_means(self.means(input_ids, attention_mask))

    def means(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What the head reads: (n, 3 * 384)."""
        return self.above(self.below(input_ids, attention_mask), attention_mask)

    def below(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Through the layers that stay as they are, to (n, length, 384)."""
        rows = self.words[input_ids].float()
        high = (rows / 16).floor()
        steps = torch.cat([rows - 16 * high, high], dim=-1) - 8
        scaled = steps * self.word_scale[input_ids].float()[..., None]
        x: Tensor = self.norm(scaled.flatten(2) + self.positions[: input_ids.shape[1]])
        bias = attention_bias(attention_mask)
        for layer in self.layers[:-OPEN]:
            x = layer(x, bias)
        return x

    def above(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        """What `below` gave, to (n, 3 * 384)."""
        bias, count = attention_bias(attention_mask), attention_mask.float().sum(1, keepdim=True)
        means = []
        for number, layer in enumerate(self.layers[-OPEN:], len(self.layers) - OPEN + 1):
            x = layer(x, bias)
            if number > len(self.layers) - READ:
                means.append(pooled(x, attention_mask) / count)
        return torch.cat(means, dim=1)

    def from_means(self, means: Tensor) -> Tensor:
        """(n, 3 * 384) to (n, dim) of length 1: both halves, by the shares that the gate gives."""
        return self.shared(*self.halves(self.head(means)))

    def halves(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """What the head gives, (n, dim), as both halves, each of length 1."""
        return unit(both[:, : self.joint]), unit(both[:, self.joint :])

    def shared(self, joint: Tensor, conse: Tensor) -> Tensor:
        """Both halves as one vector of length 1, by the shares that the gate gives."""
        of_caption, of_name = self.shares
        named = torch.relu(2 * ((conse * self.gate).sum(1, keepdim=True) + self.gate_bias).sigmoid() - 1)
        share = of_caption + (of_name - of_caption) * named
        return torch.cat([joint * share.sqrt(), conse * (1 - share).sqrt()], dim=-1)


class Head(nn.Module):
    """Features, brought to mean 0 and spread 1, to both halves of the space: a linear map of them and of a hidden layer
    of random directions (an extreme learning machine; Huang et al., 2006, "Extreme learning machine: Theory and
    applications"), which is fitted without a gradient before all of it learns.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.ones(inputs)), nn.Parameter(torch.zeros(inputs))
        self.up, self.down = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs, bias=False)
        self.straight = nn.Linear(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """(n, inputs) to (n, outputs)."""
        x = features * self.gain + self.offset
        y: Tensor = self.straight(x) + self.down(functional.gelu(self.up(x)))
        return y


def _flat(source: Source, name: str) -> Tensor:
    return torch.from_numpy(source.tensor(name))


def source_layer(source: Source, number: int) -> Layer:
    """A layer of multilingual-e5-small."""
    layer = Layer()
    shapes = {name: tensor.shape for name, tensor in layer.state_dict().items()}
    layer.load_state_dict({
        f"{ours}.{kind}": _flat(source, f"l{number}.{theirs}.{kind[0]}").reshape(shapes[f"{ours}.{kind}"])
        for ours, theirs in NAMES.items() for kind in ("weight", "bias")
    })  # fmt: skip
    return layer


def keep_four_bits(model: onnx.ModelProto, source: Source) -> None:
    """Products by the matrices of the layers that did not learn become ``MatMulNBits`` with the steps and scales of the
    source. Those that did learn need more bits: what they learned is less than a step of 4 bits.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    products = {n.output[0]: n for n in graph.node if n.op_type == "MatMul" and n.input[1] in stored}
    for node in list(graph.node):
        product = next((products[name] for name in node.input if name in products), None)
        bias = next((name for name in node.input if name.startswith("layers.") and name.endswith(".bias")), None)
        if node.op_type != "Add" or product is None or bias is None:
            continue
        _, number, name, _ = bias.split(".")
        if int(number) >= source.layers - OPEN:
            continue
        steps, scale = source.blocks(f"l{number}.{NAMES[name]}.w")
        inputs, outputs = stored[product.input[1]].dims
        pairs = (steps + 8).astype(np.uint8).reshape(outputs, inputs // BLOCK, BLOCK // 2, 2)
        weights = {
            f"{bias}.steps": pairs[..., 0] | (pairs[..., 1] << 4),
            f"{bias}.scale": scale.astype(np.float32),
        }
        graph.initializer.remove(stored[product.input[1]])
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
        narrow = helper.make_node(
            "MatMulNBits", [product.input[0], *weights], [product.output[0]], domain="com.microsoft",
            K=inputs, N=outputs, bits=4, block_size=BLOCK, accuracy_level=1,
        )  # fmt: skip
        at = list(graph.node).index(product)
        graph.node.remove(product)
        graph.node.insert(at, narrow)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def round_to_four_bits(model: onnx.ModelProto, linear: str) -> None:
    """The product of a linear layer of the head becomes ``MatMulNBits``; of several scales for 32 values the one with
    the least squared error.
    """
    graph = model.graph
    [product] = [node for node in graph.node if node.op_type == "Gemm" and node.input[1] == f"{linear}.weight"]
    [stored] = [tensor for tensor in graph.initializer if tensor.name == product.input[1]]
    matrix = numpy_helper.to_array(stored)
    blocks = matrix.reshape(-1, BLOCK)
    largest = blocks[np.arange(len(blocks)), np.abs(blocks).argmax(axis=1)]
    best = np.full(len(blocks), np.inf)
    steps, scales = np.zeros(blocks.shape, np.uint8), np.zeros(len(blocks), np.float32)
    for divisor in (-8.6, -8.3, -8.0, -7.7, -7.4, -7.1, -6.8):
        scale = (largest / divisor).astype(np.float16).astype(np.float32)
        wide = np.where(scale == 0, 1, scale)[:, None]
        rounded = np.clip(np.rint(blocks / wide), -8, 7)
        error = np.square(rounded * wide - blocks).sum(axis=1)
        better = error < best
        best[better], steps[better], scales[better] = error[better], rounded[better] + 8, scale[better]
    outputs, inputs = matrix.shape
    pairs = steps.reshape(outputs, inputs // BLOCK, BLOCK // 2, 2)
    weights = {f"{linear}.steps": pairs[..., 0] | (pairs[..., 1] << 4), f"{linear}.scale": scales}
    graph.initializer.remove(stored)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    narrow = helper.make_node(
        "MatMulNBits", [product.input[0], *weights], [f"{linear}.product"], domain="com.microsoft",
        K=inputs, N=outputs, bits=4, block_size=BLOCK, accuracy_level=1,
    )  # fmt: skip
    shifted = helper.make_node("Add", [f"{linear}.product", product.input[2]], list(product.output))
    at = list(graph.node).index(product)
    graph.node.remove(product)
    graph.node.insert(at, narrow)
    graph.node.insert(at + 1, shifted)


def export(net: MultilingualNet, source: Source, vocabulary: list[tuple[str, float]], directory: Path) -> None:
    """Writes both files; ``vocabulary`` are the chosen pieces with their scores."""
    ids = torch.randint(5, 1000, (2, 9))
    n, length = torch.export.Dim("n", min=1, max=4096), torch.export.Dim("length", min=2, max=POSITIONS)
    axes = ({0: n, 1: length}, {0: n, 1: length})
    model = export_graph(net, (ids, torch.ones_like(ids)), ["input_ids", "attention_mask"], ["vector"], axes)
    keep_four_bits(model, source)
    for linear in ("head.up", "head.straight"):
        round_to_four_bits(model, linear)
    narrow_matrices(model)
    narrow_convolutions(model)
    store_half(model)
    onnx.save(model, str(directory / "multilingual.onnx"))
    pieces = np.frombuffer("\n".join(piece for piece, _ in vocabulary).encode("utf-8"), dtype=np.uint8)
    scores = np.array([score for _, score in vocabulary], dtype=np.float32)
    np.savez_compressed(directory / "multilingual_pieces.npz", allow_pickle=False, pieces=pieces, scores=scores)


def read_learned(net: MultilingualNet, path: Path) -> None:
    """Gives the net what was learned, out of a file that `export` wrote, to go on from: as rounded as it is there."""
    graph = onnx.load(str(path)).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    products = {node.output[0]: node.input for node in graph.node if node.op_type == "MatMulNBits"}
    found = read_tensors(path)
    for node in graph.node:
        product = next((products[name] for name in node.input if name in products), None)
        bias = next((name for name in node.input if name.startswith("head.") and name.endswith(".bias")), None)
        if product is not None and bias is not None:
            pairs, scale = numpy_helper.to_array(stored[product[1]]), found[product[2]]
            steps = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(len(pairs), -1, BLOCK).astype(np.float32) - 8
            matrix = steps * scale.reshape(len(pairs), -1, 1)
            found[bias.removesuffix("bias") + "weight"] = matrix.reshape(len(pairs), -1)
    learned = [f"layers.{number}." for number in range(len(net.layers) - OPEN, len(net.layers))]
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith(("head.", *learned)):
                parameter.copy_(torch.from_numpy(found[name]))
