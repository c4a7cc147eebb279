"""The built-in encoder, opened for training from any folder of its layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsearch.core.errors import EncoderError
from mmsearch.models.encoders.builtin_description import BuiltinDescription
from mmsearch.training.builtin_modules import (
    CLASSES,
    STAGES,
    TEMPERATURE,
    ImageNet,
    TextNet,
    Vocabulary,
    pooled,
    unit,
)
from mmsearch.training.dual_encoder import DualEncoder, ImageRows, Pixels, TextRows, Tokens
from mmsearch.training.hubness import FEWEST, groups_of
from mmsearch.training.onnx_weights import Array, read_tensors
from mmsearch.training.options import BuiltinModelOptions, Freezing

if TYPE_CHECKING:
    from PIL.Image import Image

LAYERS = 6
TEXTS_A_GROUP = 96
PROTOTYPE_SCALE = 15.0
SETTLED = 384
"""Captions that are encoded at once."""
LONGEST_CAPTION = 64
"""Word pieces of a caption that training reads; the exported encoder reads as many as before."""


class BuiltinModel(DualEncoder):
    """The encoder in ``directory``. A folder without a joint space (version 0) gets one, to be learned from nothing.

    Words, positions, MiniLM's own layers and what finds objects never learn: the joint space has its own copies of
    the last text layers, ConSE's space keeps the sentence vectors that its class vectors were made of.

    Raises:
        EncoderError: the weights are not those of these networks.
    """

    def __init__(self, directory: Path, freezing: Freezing, options: BuiltinModelOptions) -> None:
        super().__init__()
        self.directory, self.options = directory, options
        description = BuiltinDescription.read(directory)
        self.name, self.framing = description.spec.name, description.framing
        self.image_size = self.framing.size
        self.tokenizer = _tokenizer(directory / description.tokenizer_file)
        image = read_tensors(directory / description.image_file)
        text = read_tensors(directory / description.text_file)
        self.is_new = "head.straight.weight" not in image
        self.class_names = _class_names(directory / "classes.tsv")
        blocks = STAGES if freezing.blocks is None else freezing.blocks
        layers = LAYERS if freezing.of_text is None else min(freezing.of_text, LAYERS)
        self.stages = max(0, STAGES - blocks)
        shares = (options.share, options.name_share)
        shares = shares if self.is_new else _stored_shares(directory, shares)
        self.image = _image_net(image, options)
        self.text = _text_net(text, layers, options, shares)
        self.learns_stem = freezing.blocks is None
        self._freeze(blocks, layers)
        self.frozen_rest: nn.ModuleList | None = None
        if blocks:
            self._keep_the_old_rest()
        self.vocabulary: Vocabulary | None = None
        # Convolutions on a CPU are up to twice as fast with the channels last.
        self.image.network.to(memory_format=torch.channels_last)

    def view(self, image: Image, box: tuple[float, float, float, float] | None, size: int | None = None) -> Pixels:
        """See :meth:`DualEncoder.view`."""
        if box is None:
            return replace(self.framing, size=size or self.framing.size).apply(image)
        from PIL.Image import Resampling

        side = size or self.image_size
        return np.asarray(image.resize((side, side), Resampling.BICUBIC, box=box, reducing_gap=3.0), dtype=np.uint8)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """See :meth:`DualEncoder.tokenize`."""
        rows = [self.tokenizer.encode(text).ids for text in texts]
        tokens = np.zeros((len(rows), max(map(len, rows), default=1)), dtype=np.int64)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        return tokens

    def image_start(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The stages that do not learn, and what was found in the picture before training: classes, then objects."""
        with torch.set_grad_enabled(self.learns_stem and torch.is_grad_enabled()):
            x = self.image.network.first(pixels, self.stages)
        if self.frozen_rest is None:
            with torch.no_grad():
                return (self.image.network.rest(x, self.stages)[1],)
        with torch.no_grad():
            return x, self._old_findings(x.detach())

    def image_rest(self, kept: tuple[Tensor, ...]) -> ImageRows:
        """See :meth:`DualEncoder.image_rest`."""
        if self.frozen_rest is None:
            features = kept[0].float()
            joint = self.image.head(features)
            with torch.no_grad():
                conse = self.image.conse(self.image.network.classifier(features), features)
            return ImageRows(joint, self.image.vectors(joint, conse), self._forgotten_names(features))
        out = self.image.rest(kept[0].float().contiguous(memory_format=torch.channels_last), self.stages)
        old, old_objects = kept[1].float().tensor_split([CLASSES], dim=1)
        change = functional.kl_div((out.logits / 1.5).log_softmax(1), (old / 1.5).softmax(1), reduction="batchmean")
        if self.image.objects is not None:
            # Its layer never learns, but what it reads does.
            change = change + functional.mse_loss(self.image.objects(out.features), old_objects)
        vectors = self.image.vectors(out.joint, out.conse)
        return ImageRows(out.joint, vectors, self.options.keep_classes * change + self._forgotten_names(out.features))

    def _forgotten_names(self, features: Tensor) -> Tensor:
        """The weighted loss of made-up pictures of random classes against the classes' names."""
        if self.vocabulary is None or not self.training:
            return features.new_zeros(())
        classes, made_up = self.vocabulary.pictures(features.detach(), self.options.prototypes)
        texts = [f"a photo of a {_any_of(self.class_names[int(number)])}." for number in classes]
        names = self.texts(torch.from_numpy(self.tokenize(texts)).to(features.device)).learned
        scores = PROTOTYPE_SCALE * self.image.head(made_up).float() @ names.float().T
        right = torch.arange(len(classes), device=scores.device)
        loss = functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)
        return self.options.prototype_weight / 2 * loss

    def text_start(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """The layers that do not learn, the mask, and outside of training ConSE's sentence vector."""
        mask = (tokens != 0).long()
        with torch.no_grad():
            x = self.text.first(tokens, mask)
            return (x, mask) if self.training else (x, mask, self.text.conse(x, mask))

    def text_rest(self, kept: tuple[Tensor, ...]) -> TextRows:
        """See :meth:`DualEncoder.text_rest`."""
        x, mask, *conse = kept
        joint = self.text.joint(x.float(), mask)
        return TextRows(joint, self.text.vectors(joint, conse[0]) if conse else joint)

    def texts(self, tokens: Tensor) -> TextRows:
        """In groups of similar length, so that little is padded: captions are 8 to 40 word pieces long."""
        lengths = (tokens != 0).sum(1)
        order = lengths.argsort(stable=True)
        groups = [
            self._of_one_length(tokens[rows], int(lengths[rows].max())) for rows in torch.split(order, TEXTS_A_GROUP)
        ]
        back = order.argsort()
        learned, vectors = (torch.cat(parts)[back] for parts in zip(*groups, strict=True))
        return TextRows(learned, vectors)

    def _of_one_length(self, tokens: Tensor, length: int) -> TextRows:
        return self.text_rest(self.text_start(tokens[:, :length]))

    def known_queries(self, kept: tuple[Tensor, ...], random: np.random.Generator) -> tuple[list[str], Tensor] | None:
        """Names of the ImageNet classes that the batch shows most clearly, and the classifier's probabilities."""
        if not self.class_names or self.options.class_queries == 0:
            return None
        if self.frozen_rest is None:
            logits = self.image.network.classifier(kept[0].float())
        else:
            logits = kept[1].float()[:, :CLASSES]
        shares = (logits / TEMPERATURE).softmax(1).T
        clearest = shares.amax(1).topk(min(self.options.class_queries, len(shares))).indices
        names = [self.class_names[int(number)] for number in clearest]
        return [f"a photo of a {names_[random.integers(len(names_))]}." for names_ in names], shares[clearest].detach()

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """See :meth:`DualEncoder.parameter_groups`."""
        heads = [*self.image.head.parameters(), *self.text.head.parameters()]
        known = {id(parameter) for parameter in heads}
        network = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        return heads, network

    def begin(self, kept: tuple[Tensor, ...], texts: Tensor) -> None:
        """New projections start from inputs of mean 0 and spread 1; what made-up pictures of classes need is
        worked out.
        """
        with torch.no_grad():
            if self.frozen_rest is None:
                features = kept[0].float()
            else:
                features = self.image.network.rest(kept[0].float(), self.stages)[1]
            if self.class_names and self.options.prototypes:
                self.vocabulary = Vocabulary(features, self.image.network.classifier, len(self.class_names))
            if not self.is_new:
                return
            self.image.head.standardize(features)
            mask = (texts != 0).long()
            x = self.text.through_branch(self.text.first(texts, mask), mask)
            self.text.head.standardize(unit(pooled(x, mask)))
            captions = self.text.conse(self.text.first(texts, mask), mask)
        if self.class_names:
            self._fit_gate(captions)

    def _fit_gate(self, captions: Tensor) -> None:
        """Logistic regression on sentence vectors: captions against the names of ImageNet's classes, alone and in a
        prompt, both kinds with equal weight.
        """
        names = [prompt.format(names[0]) for names in self.class_names for prompt in ("{}", "a photo of a {}.")]
        with torch.no_grad():
            parts = []
            for start in range(0, len(names), 256):
                tokens = torch.from_numpy(self.tokenize(names[start : start + 256])).to(captions.device)
                mask = (tokens != 0).long()
                parts.append(self.text.conse(self.text.first(tokens, mask), mask))
        rows = torch.cat([captions, *parts]).float()
        target = torch.zeros(len(rows), device=rows.device)
        target[len(captions) :] = 1
        balance = torch.where(target == 1, 0.5 / max(len(names), 1), 0.5 / len(captions))
        gate, bias = (torch.zeros(size, device=rows.device, requires_grad=True) for size in (rows.shape[1], 1))
        optimizer = torch.optim.LBFGS([gate, bias], max_iter=100)

        def loss() -> Tensor:
            optimizer.zero_grad()
            wrong = functional.binary_cross_entropy_with_logits(rows @ gate + bias, target, balance, reduction="sum")
            total = wrong + 1e-4 * gate.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]
        self.text.gate.data.copy_(gate.detach())
        self.text.gate_bias.data.copy_(bias.detach())

    @property
    def caption_numbers(self) -> int | None:
        """The learned space, which comes first."""
        return int(self.image.head.straight.out_features)

    def settle(self, captions: Sequence[str]) -> None:
        """Where captions in general lie is learned anew, since the space has moved; few captions do not say it."""
        if self.image.captions is None or len(captions) < FEWEST:
            return
        self.eval()
        with torch.no_grad():
            parts = [
                self.texts(torch.from_numpy(self.tokenize(captions[start : start + SETTLED]))).learned
                for start in range(0, len(captions), SETTLED)
            ]
        groups = unit(torch.from_numpy(groups_of(torch.cat(parts).float().numpy())))
        usual = self.image.captions.bias[:1]
        self.image.captions = nn.Linear(groups.shape[1], len(groups)).requires_grad_(False)
        self.image.captions.weight.copy_(groups)
        self.image.captions.bias.copy_(usual.expand(len(groups)))

    def export(self, directory: Path) -> None:
        """Writes a folder of the built-in layout; see ``builtin_export``."""
        from mmsearch.training.builtin_export import export_builtin

        export_builtin(self, directory)

    def describe(self) -> dict[str, Any]:
        """See :meth:`DualEncoder.describe`."""
        learned = {"image_stages": STAGES - self.stages, "text_layers": len(self.text.branch)}
        return {**super().describe(), **learned, "shares": list(self.text.shares)}

    def _freeze(self, blocks: int, layers: int) -> None:
        self.requires_grad_(False)
        self.image.head.requires_grad_(True)
        self.text.head.requires_grad_(True)
        self.image.network.conv_stem.requires_grad_(self.learns_stem)
        if blocks:
            for stage in self.image.network.blocks[self.stages :]:
                stage.requires_grad_(True)
            self.image.network.conv_head.requires_grad_(True)
            self.image.network.classifier.requires_grad_(True)
        for layer in self.text.branch[len(self.text.branch) - layers :]:
            layer.requires_grad_(True)

    def _keep_the_old_rest(self) -> None:
        old = ImageNet(8, 8)
        old.network.load_state_dict(self.image.network.state_dict())
        rest = [*old.network.blocks[self.stages :], old.network.conv_head, old.network.classifier]
        self.frozen_rest = nn.ModuleList(rest).requires_grad_(False)

    def _old_findings(self, x: Tensor) -> Tensor:
        """Logits of classes, then of objects, (n, 1000 + objects)."""
        assert self.frozen_rest is not None
        *stages, head, classifier = self.frozen_rest
        for stage in stages:
            x = stage(x)
        features = functional.relu6(head(x)).mean((2, 3))
        logits: Tensor = classifier(features)
        if self.image.objects is None:
            return logits
        return torch.cat([logits, self.image.objects(features)], dim=1)


def _any_of(names: Sequence[str]) -> str:
    """One of the synonyms, by torch's random numbers, which a step seeds."""
    return names[int(torch.randint(len(names), ()))]


def _image_net(tensors: dict[str, Array], options: BuiltinModelOptions) -> ImageNet:
    hidden, joint = options.image_hidden, options.joint
    if "head.straight.weight" in tensors:
        hidden, joint = len(tensors["head.up.weight"]), len(tensors["head.straight.weight"])
    found = (len(tensors.get(name, ())) for name in ("objects.weight", "captions.weight"))
    net = ImageNet(hidden, joint, options.dropout, *found)
    _load(net, tensors, new=("head.",))
    return net


def _text_net(
    tensors: dict[str, Array], layers: int, options: BuiltinModelOptions, shares: tuple[float, float]
) -> TextNet:
    hidden, joint = options.text_hidden, options.joint
    if "head.straight.weight" in tensors:
        hidden, joint = len(tensors["head.up.weight"]), len(tensors["head.straight.weight"])
    stored = sum(f"branch.{number}.query.weight" in tensors for number in range(LAYERS))
    depth = max(stored, layers)
    words, positions = len(tensors["words.weight"]), len(tensors["positions"])
    net = TextNet(hidden, joint, depth, words, positions, options.dropout / 2, shares)
    branch: dict[str, Array] = {}
    for number in range(depth):
        # Layers below the stored branch are still shared, so they start from MiniLM's.
        own = number - (depth - stored)
        source = f"branch.{own}." if own >= 0 else f"layers.{LAYERS - depth + number}."
        branch.update(
            {f"branch.{number}.{k.removeprefix(source)}": v for k, v in tensors.items() if k.startswith(source)}
        )
    shared = {name: value for name, value in tensors.items() if not name.startswith("branch.")}
    _load(net, {**shared, **branch}, new=("head.", "gate"))
    return net


def _load(net: nn.Module, tensors: dict[str, Array], new: tuple[str, ...]) -> None:
    """Fills ``net`` by name; parameters below ``new`` may be missing and then keep their first values."""
    state = net.state_dict()
    for name, value in state.items():
        found = tensors.get(name)
        if found is not None and found.shape == tuple(value.shape):
            state[name] = torch.from_numpy(np.array(found))
        elif found is not None or not name.startswith(new):
            shape = "missing" if found is None else f"of shape {found.shape}"
            raise EncoderError(
                f"these are not the built-in networks: {name} is {shape}, expected {tuple(value.shape)}; "
                "train from the built-in encoder or from what its training made"
            )
    net.load_state_dict(state)


def _class_names(path: Path) -> list[list[str]]:
    """The synonyms of each ImageNet class, where the folder lists them."""
    if not path.is_file():
        return []
    return [line.split("\t")[0].split(", ") for line in path.read_text(encoding="utf-8").splitlines()]


def _stored_shares(directory: Path, otherwise: tuple[float, float]) -> tuple[float, float]:
    fields = json.loads((directory / "encoder.json").read_text(encoding="utf-8"))
    of_caption, of_name = fields.get("joint_shares", otherwise)
    return float(of_caption), float(of_name)


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST_CAPTION)
    return tokenizer
