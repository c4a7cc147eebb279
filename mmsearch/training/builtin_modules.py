"""The networks of the built-in encoder as torch modules, under the names that its ONNX graphs keep.

Image: EfficientNet-Lite2 (Google, 2020) with its batch norms merged into the convolutions. Text: BERT layers of
all-MiniLM-L6-v2. Both vectors are two unit vectors side by side, each times the root of a share, so that one
inner product is the weighted sum of two cosines: of the joint space, which is learned from pairs, and of
ConSE's space (Norouzi et al., 2014, https://arxiv.org/abs/1312.5650), which knows the names of ImageNet.

The shares are the text's to choose: a caption is best compared in the joint space, the name of a thing mostly in
ConSE's. A logistic gate on MiniLM's sentence vector tells how much a text is like a name.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsearch.models.encoders.caption_centroids import NEIGHBOURS

WIDTH = 384
"""Channels of MiniLM, and the length of a vector in ConSE's space."""
TOP_CLASSES, TEMPERATURE = 20, 1.5
_STAGES = (  # blocks, kernel, stride, channels, expansion
    (1, 3, 1, 16, 1),
    (3, 3, 2, 24, 6),
    (3, 5, 2, 48, 6),
    (4, 3, 2, 88, 6),
    (4, 5, 1, 120, 6),
    (5, 5, 2, 208, 6),
    (1, 3, 1, 352, 6),
)
STAGES = len(_STAGES)
FEATURES, CLASSES, GRID = 1280, 1000, 352
HUBNESS, SHORTEST, LONGEST = 0.75, 0.5, 1.25
"""By how much of its length the joint half of a picture is shorter for each unit that it lies nearer to captions in
general than usual, and the bounds of that. Chosen on Flickr8k dev, where 1.25 finds a point more and names lose.
"""


class Convolution(nn.Module):
    """A convolution with bias and TensorFlow's SAME padding, which is uneven at stride 2."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.kernel, self.stride, self.groups = kernel, stride, groups
        nn.init.kaiming_normal_(self.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, ceil(h / stride), ceil(w / stride))."""
        if self.groups > 1 and torch.is_autocast_enabled("cpu") and x.device.type == "cpu":
            # Measured: where others gain from bfloat16, convolutions of single channels take several times as long.
            with torch.autocast("cpu", enabled=False):
                return self._convolved(x.float())
        return self._convolved(x)

    def _convolved(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return functional.conv2d(x, self.weight, self.bias, 1, self.kernel // 2, groups=self.groups)
        down, right = (self._missing(int(side)) for side in x.shape[2:])
        x = functional.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return functional.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)

    def _missing(self, side: int) -> int:
        return max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0)


class Block(nn.Module):
    """Expand, filter each channel, project; the input is added where the shape stays (MobileNetV2)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, adds: bool) -> None:
        super().__init__()
        inner = inputs * expansion
        self.adds, self.expands = adds, expansion > 1
        if self.expands:
            self.conv_pw = Convolution(inputs, inner)
            self.conv_dw = Convolution(inner, inner, kernel, stride, inner)
            self.conv_pwl = Convolution(inner, outputs)
        else:
            self.conv_dw = Convolution(inner, inner, kernel, stride, inner)
            self.conv_pw = Convolution(inner, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h', w')."""
        if not self.expands:
            y: Tensor = self.conv_pw(functional.relu6(self.conv_dw(x)))
            return y
        y = self.conv_pwl(functional.relu6(self.conv_dw(functional.relu6(self.conv_pw(x)))))
        return x + y if self.adds else y


class Lite2(nn.Module):
    """EfficientNet-Lite2 in parts, so that those that do not learn can be worked out once."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = Convolution(3, 32, 3, 2)
        self.blocks = nn.ModuleList()
        inputs = 32
        for count, kernel, stride, outputs, expansion in _STAGES:
            stage = nn.Sequential()
            for number in range(count):
                adds = number > 0
                stage.append(Block(inputs, outputs, kernel, 1 if adds else stride, expansion, adds))
                inputs = outputs
            self.blocks.append(stage)
        self.conv_head = Convolution(GRID, FEATURES)
        self.classifier = nn.Linear(FEATURES, CLASSES)

    def first(self, pixels: Tensor, stages: int) -> Tensor:
        """(n, h, w, 3) of 0 to 255 through the stem and the first ``stages`` stages."""
        x = functional.relu6(self.conv_stem(pixels.permute(0, 3, 1, 2).float() * (1 / 127.5) - 1))
        for stage in self.blocks[:stages]:
            x = stage(x)
        return x

    def rest(self, x: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        """What ``first`` gave to the grid (n, 352, 9, 9) and its mean features (n, 1280)."""
        for stage in self.blocks[stages:]:
            x = stage(x)
        return x, functional.relu6(self.conv_head(x)).mean((2, 3))


class Projection(nn.Module):
    """Features to rows of length 1: a linear map plus a hidden layer."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.offset, self.gain = nn.Parameter(torch.zeros(inputs)), nn.Parameter(torch.ones(inputs))
        self.straight = nn.Linear(inputs, outputs)
        self.up, self.down = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        self.dropout, self.hidden_dropout = nn.Dropout(dropout / 2), nn.Dropout(dropout)

    def standardize(self, features: Tensor) -> None:
        """Lets the layer start from inputs of mean 0 and spread 1, as these features say."""
        with torch.no_grad():
            spread = features.std(0)
            self.gain.copy_(1 / (spread + 0.2 * spread.mean()))
            self.offset.copy_(-features.mean(0) * self.gain)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) to (n, outputs) of length 1."""
        x = self.dropout(x * self.gain + self.offset)
        y = self.straight(x) + self.down(self.hidden_dropout(functional.gelu(self.up(x))))
        return unit(y)


class Layer(nn.Module):
    """One post-norm BERT layer with 12 heads of 32 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.mix = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.mix_norm, self.down_norm = nn.LayerNorm(WIDTH, 1e-12), nn.LayerNorm(WIDTH, 1e-12)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x (n, length, 384); bias (n, 1, 1, length) is 0 for tokens and hugely negative for padding."""
        n, length, _ = x.shape

        def heads(y: Tensor) -> Tensor:
            return y.reshape(n, length, 12, 32).transpose(1, 2)

        scores = heads(self.query(x)) @ heads(self.key(x)).transpose(2, 3) * 32**-0.5 + bias
        mixed = (scores.softmax(-1) @ heads(self.value(x))).transpose(1, 2).reshape(n, length, WIDTH)
        x = self.mix_norm(x + self.mix(mixed))
        y: Tensor = self.down_norm(x + self.down(functional.gelu(self.up(x))))
        return y


class ImageOutput(NamedTuple):
    """``features`` (n, 1280), ``joint`` and ``conse`` (n, dim) of length 1, ``logits`` (n, 1000), ``grid``
    (n, 352, h, w).
    """

    features: Tensor
    joint: Tensor
    conse: Tensor
    logits: Tensor
    grid: Tensor


class ImageNet(nn.Module):
    """Pixels to the joint space and to ConSE's.

    ``objects`` things that the classifier has no class for, or that a picture shows beside its main one, may add their
    names to ConSE's half: as much of each as a linear layer of the features finds above zero. Vectors of the names have
    their weight in their lengths. ``scripts/object_layer.py`` fits both.

    ``captions`` places in the joint space where captions in general lie tell which pictures are near to all of them
    (hubs), by their cosines less what is usual, its bias. Such a picture gets a shorter joint half and a longer half of
    ConSE, so that it must fit a caption better than another picture does. The subtraction of NNN (Bowman et al., 2024)
    becomes a factor, which a vector can carry.
    """

    def __init__(self, hidden: int, joint: int, dropout: float = 0.0, objects: int = 0, captions: int = 0) -> None:
        super().__init__()
        self.network = Lite2()
        self.classes = nn.Parameter(torch.zeros(CLASSES, WIDTH), requires_grad=False)
        self.objects = nn.Linear(FEATURES, objects) if objects else None
        self.object_names = nn.Parameter(torch.zeros(objects, WIDTH), requires_grad=False) if objects else None
        self.head = Projection(FEATURES, hidden, joint, dropout)
        self.captions = nn.Linear(joint, captions).requires_grad_(False) if captions else None

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, h, w, 3) uint8 to what the exported graph gives: vector, logits, grid."""
        out = self.rest(self.network.first(pixels, STAGES), STAGES)
        return self.vectors(out.joint, out.conse), out.logits, out.grid

    def hubness(self, joint: Tensor) -> Tensor:
        """How much nearer than usual pictures lie to the captions in general that they are nearest to, (n, 1)."""
        assert self.captions is not None
        few = min(NEIGHBOURS, self.captions.out_features)
        nearer: Tensor = self.captions(joint).topk(few, dim=1).values.mean(1, keepdim=True)
        return nearer

    def vectors(self, joint: Tensor, conse: Tensor) -> Tensor:
        """Both halves, (n, …) of length 1, as one vector of length 1."""
        if self.captions is None:
            return side_by_side(joint, conse)
        length = (1 - HUBNESS * self.hubness(joint)).clamp(SHORTEST, LONGEST) * float(np.sqrt(0.5))
        return torch.cat([joint * length, conse * (1 - length.square()).sqrt()], dim=-1)

    def rest(self, x: Tensor, stages: int) -> ImageOutput:
        """From what the first ``stages`` stages gave."""
        grid, features = self.network.rest(x, stages)
        logits = self.network.classifier(features)
        return ImageOutput(features, self.head(features), self.conse(logits, features), logits, grid)

    def conse(self, logits: Tensor, features: Tensor) -> Tensor:
        """The mean of the vectors of the 20 most probable classes, weighted by their probabilities, at length 1; then
        the names of objects are added.
        """
        top, which = logits.topk(TOP_CLASSES, dim=1)
        weights = (top / TEMPERATURE).softmax(1)
        classes = unit((weights[:, None, :] @ functional.embedding(which, self.classes))[:, 0])
        if self.objects is None or self.object_names is None:
            return classes
        return unit(classes + functional.relu(self.objects(features)) @ self.object_names)


class TextNet(nn.Module):
    """Tokens to the joint space, by layers that learn, and to ConSE's, by the layers of MiniLM as they were.

    Both share the words and the first ``6 - branch`` layers.
    """

    def __init__(
        self, hidden: int, joint: int, branch: int, words: int, positions: int, dropout: float = 0.0,
        shares: tuple[float, float] = (0.97, 0.6),
    ) -> None:  # fmt: skip
        super().__init__()
        self.shares = shares
        self.gate = nn.Parameter(torch.zeros(WIDTH), requires_grad=False)
        self.gate_bias = nn.Parameter(torch.tensor([-20.0]), requires_grad=False)  # every text is a caption
        self.words = nn.Embedding(words, WIDTH)
        self.positions = nn.Parameter(torch.zeros(positions, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, 1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(6))
        self.branch = nn.ModuleList(Layer() for _ in range(branch))
        self.head = Projection(WIDTH, hidden, joint, dropout)
        self.token_dropout = nn.Dropout(dropout / 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(n, length) tokens and mask to what the exported graph gives: vector, and the tokens (n, length, 384)."""
        x = self.first(input_ids, attention_mask)
        conse = self.conse(x, attention_mask)
        tokens = self.through_branch(x, attention_mask)
        joint = self.head(unit(pooled(tokens, attention_mask)))
        return self.vectors(joint, conse), tokens

    def vectors(self, joint: Tensor, conse: Tensor) -> Tensor:
        """Both halves side by side, by the shares that the gate gives each text."""
        of_caption, of_name = self.shares
        odds = (conse * self.gate).sum(1, keepdim=True) + self.gate_bias
        # Below even odds a text is a caption and nothing else: captions that are weighed differently would
        # disturb each other's order when an image asks for them.
        named = functional.relu(2 * odds.sigmoid() - 1)
        share = of_caption + (of_name - of_caption) * named
        return torch.cat([joint * share.sqrt(), conse * (1 - share).sqrt()], dim=-1)

    def first(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """(n, length) tokens to (n, length, 384), up to where the branch leaves."""
        x: Tensor = self.norm(self.words(input_ids) + self.positions[: input_ids.shape[1]])
        for layer in self.layers[: len(self.layers) - len(self.branch)]:
            x = layer(x, attention_bias(mask))
        return x

    def joint(self, x: Tensor, mask: Tensor) -> Tensor:
        """From what ``first`` gave to (n, joint) of length 1."""
        y: Tensor = self.head(unit(pooled(self.through_branch(self.token_dropout(x), mask), mask)))
        return y

    def through_branch(self, x: Tensor, mask: Tensor) -> Tensor:
        """From what ``first`` gave to the last tokens of the joint space (n, length, 384)."""
        for layer in self.branch:
            x = layer(x, attention_bias(mask))
        return x

    def conse(self, x: Tensor, mask: Tensor) -> Tensor:
        """From what ``first`` gave to MiniLM's own sentence vectors (n, 384) of length 1."""
        for layer in self.layers[len(self.layers) - len(self.branch) :]:
            x = layer(x, attention_bias(mask))
        return unit(pooled(x, mask))


def attention_bias(mask: Tensor) -> Tensor:
    """A mask (n, length), 1 for tokens and 0 for padding, to what attention scores get added."""
    return (1 - mask.float())[:, None, None, :] * -1e9


def pooled(x: Tensor, mask: Tensor) -> Tensor:
    """The sum over real tokens of (n, length, width); its length does not matter here."""
    return (x * mask.float()[..., None]).sum(1)


def unit(rows: Tensor) -> Tensor:
    """Rows divided by their lengths."""
    length: Tensor = rows.norm(dim=-1, keepdim=True)
    return rows / length.clamp(min=1e-12)


def side_by_side(joint: Tensor, conse: Tensor) -> Tensor:
    """Two unit vectors, with equal shares, as one of length 1."""
    both: Tensor = torch.cat([joint, conse], dim=-1)
    return both * float(np.sqrt(0.5))


PROBABILITY = 0.7
"""What the classifier says of the plain made-up picture of a class."""


class Vocabulary:
    """The classes of a linear classifier as directions in the space of its features.

    Fisher's discriminant has weights w = S⁻¹ (m_c − m), S being the covariance of the features within a class and m
    their mean. Read backwards, S w is where pictures of a class lie, seen from the mean of all. S is estimated from
    ``features`` (n, width), of any pictures. Only the first ``classes`` have names. The step is as long as the
    classifier needs to be sure.
    """

    def __init__(self, features: Tensor, classifier: nn.Linear, classes: int) -> None:
        self.mean = features.mean(0)
        centred = features - self.mean
        weights = classifier.weight.detach()
        # What all classes share says nothing about any of them, and a softmax does not see it.
        directions = (weights - weights.mean(0))[:classes] @ (centred.T @ centred / len(features))
        self.steps = directions / directions.norm(dim=1, keepdim=True)
        self.steps *= self._lengths(classifier)[:, None]

    def _lengths(self, classifier: nn.Linear) -> Tensor:
        """By bisection: how far to go from the mean until the class has the wanted probability."""
        low, high = (torch.full((len(self.steps),), end, device=self.steps.device) for end in (0.0, 50.0))
        for _ in range(12):
            middle = (low + high) / 2
            logits = classifier((self.mean + middle[:, None] * self.steps).clamp(min=0))
            sure = logits.softmax(1).diagonal() > PROBABILITY
            low, high = torch.where(sure, low, middle), torch.where(sure, middle, high)
        return high

    def pictures(self, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """``count`` classes at random, and features (count, width) of each, in the surroundings that random rows of
        ``features`` (n, width) show.
        """
        count = min(count, len(self.steps))
        classes = torch.randperm(len(self.steps))[:count]
        rows = torch.randint(len(features), (count,))
        share = torch.rand(count, 1).to(features.device)
        strength = (0.5 + torch.rand(count, 1)).to(features.device)
        surroundings = share * features[rows] + (1 - share) * self.mean
        return classes, (surroundings + strength * self.steps[classes]).clamp(min=0)
