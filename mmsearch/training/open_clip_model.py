"""Any open_clip model as encoders that learn. Importing this module imports open_clip when a model is opened."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from mmsearch.core.errors import UsageError
from mmsearch.models.encoders.open_clip import load_model, load_tokenizer
from mmsearch.models.encoders.open_clip_files import CONFIG_FILE, LocalModel
from mmsearch.models.encoders.preparation import Preparation, triple
from mmsearch.models.encoders.weights import hub_file
from mmsearch.training.dual_encoder import DualEncoder, ImageRows, Pixels, TextRows, Tokens
from mmsearch.training.options import Freezing

if TYPE_CHECKING:
    from PIL.Image import Image

_BLOCK = re.compile(r"(?:resblocks|blocks|stages|layers?)\.(\d+)\.")
_HEAD = re.compile(r"(?:^|\.)(?:proj|text_projection|head|ln_post|ln_final|attn_pool|norm|pooler)(?:\.|$)")


class OpenClipModel(DualEncoder):
    """A whole open_clip model. It stays in evaluation mode: batch statistics and dropout are not for fine-tuning
    on small data, and an epoch can be repeated exactly.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, local: LocalModel, freezing: Freezing) -> None:
        super().__init__()
        self.local, self.name = local, local.name
        self.model, self.config = load_model(local)
        self.tokenizer = load_tokenizer(local, self.config)
        self.cfg: dict[str, Any] = self.model.visual.preprocess_cfg
        self._transform = Preparation.of_open_clip(self.cfg)
        mean, std = triple(self.cfg["mean"]), triple(self.cfg["std"])
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.height, self.width = self._transform.height, self._transform.width
        self.image_size = max(self.height, self.width)
        self._heads = _freeze(self.model, freezing)
        if freezing.rank:
            learned = {name for name, p in self.model.named_parameters() if p.requires_grad} - self._heads
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name in self._heads)
            if not add_low_rank(self.model, freezing.rank, lambda name: name in learned and _block(name) >= 0):
                raise UsageError(f"{self.name} has no blocks of matrices that could learn by low-rank updates")

    def train(self, mode: bool = True) -> OpenClipModel:
        """Sets ``training`` for callers; the model itself stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def view(self, image: Image, box: tuple[float, float, float, float] | None, size: int | None = None) -> Pixels:
        """See :meth:`DualEncoder.view`.

        Raises:
            UsageError: another size is asked for than that of the encoder's position embeddings.
        """
        if size not in (None, self.image_size):
            raise UsageError(f"{self.name} takes pictures of {self.image_size} pixels, views of {size} were asked for")
        if box is None:
            return np.array(self._transform(image), dtype=np.uint8)
        from PIL.Image import Resampling

        return np.array(image.resize((self.width, self.height), Resampling.BICUBIC, box=box), dtype=np.uint8)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """See :meth:`DualEncoder.tokenize`."""
        return np.asarray(self.tokenizer(list(texts)), dtype=np.int64)

    def image_start(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Nothing: the pixels themselves are what can be kept."""
        return (pixels,)

    def image_rest(self, kept: tuple[Tensor, ...]) -> ImageRows:
        """See :meth:`DualEncoder.image_rest`."""
        pixels = kept[0].permute(0, 3, 1, 2).float() / 255
        rows = functional.normalize(self.model.encode_image((pixels - self.mean) / self.std).float(), dim=-1)
        return ImageRows(rows, rows, rows.new_zeros(()))

    def text_start(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Nothing: the tokens themselves."""
        return (tokens,)

    def text_rest(self, kept: tuple[Tensor, ...]) -> TextRows:
        """See :meth:`DualEncoder.text_rest`."""
        rows = functional.normalize(self.model.encode_text(kept[0]).float(), dim=-1)
        return TextRows(rows, rows)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """See :meth:`DualEncoder.parameter_groups`."""
        learning = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        return [p for n, p in learning if n in self._heads], [p for n, p in learning if n not in self._heads]

    def begin(self, kept: tuple[Tensor, ...], texts: Tensor) -> None:
        """Nothing: every weight is there."""

    @property
    def scale(self) -> float | None:
        """1 / temperature that the model was trained with."""
        return float(self.model.logit_scale.exp())

    def take_scale(self, scale: float, bias: float | None) -> None:
        """Lets the exported model say the scale (and bias) that training ended with."""
        with torch.no_grad():
            self.model.logit_scale.fill_(float(np.log(scale)))
            if bias is not None and getattr(self.model, "logit_bias", None) is not None:
                self.model.logit_bias.fill_(bias)

    def export(self, directory: Path) -> None:
        """Writes open_clip's ``local-dir`` format: its configuration, the weights, the tokenizer if it has one.

        Low-rank updates become part of the weights, here too.
        """
        from safetensors.torch import save_file

        merge_low_rank(self.model)
        if self.local.directory is not None:
            shutil.copyfile(self.local.directory / CONFIG_FILE, directory / CONFIG_FILE)
        else:
            content = {"model_cfg": self.config, "preprocess_cfg": _plain(self.cfg)}
            (directory / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        weights = {name: value.detach().cpu().clone().contiguous() for name, value in self.model.state_dict().items()}
        save_file(weights, str(directory / "open_clip_model.safetensors"))
        tokenizer = self._tokenizer_file()
        if tokenizer is not None and tokenizer.is_file():
            shutil.copyfile(tokenizer, directory / "tokenizer.json")

    def _tokenizer_file(self) -> Path | None:
        name = str(self.config["text_cfg"].get("hf_tokenizer_name") or "").removeprefix("hf-hub:")
        if not name:
            return None
        if self.local.repo is None and self.local.directory is not None:
            return self.local.directory / "tokenizer.json"
        return hub_file(name, "tokenizer.json")


def _freeze(model: Any, freezing: Freezing) -> set[str]:
    """Decides what learns; returns the names of the parameters that project into the shared space."""
    constants = {"logit_scale", "logit_bias"}
    names = [name for name, _ in model.named_parameters() if name not in constants]
    heads = {name for name in names if _BLOCK.search(name) is None and _HEAD.search(name)}
    for name, parameter in model.named_parameters():
        same_half = [other for other in names if _is_visual(other) == _is_visual(name)]
        wanted = freezing.blocks if _is_visual(name) else freezing.of_text
        last = max((_block(other) for other in same_half), default=-1)
        late = wanted is None or (_block(name) >= 0 and _block(name) > last - wanted)
        parameter.requires_grad_(name not in constants and (late or name in heads))
    return heads


def _is_visual(name: str) -> bool:
    return name.startswith("visual.")


def _block(name: str) -> int:
    match = _BLOCK.search(name)
    return int(match[1]) if match else -1


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}


ALPHA = 2.0
"""alpha / rank: how far a step of the learning rate moves the sum; twice what ``down`` and ``up`` alone give."""


class LowRank(nn.Module):
    """What is added to one weight matrix, as a parametrization of it: low-rank adaptation (Hu et al., 2021,
    https://arxiv.org/abs/2106.09685). A matrix W stays as it is and learns W + (alpha / rank) · up · down, where ``up``
    (rows, rank) starts as 0 and ``down`` is (rank, columns). After training the sum takes W's place.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.empty(rank, columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """(rows, columns) to the same."""
        return weight + ALPHA * (self.up @ self.down)


def add_low_rank(model: nn.Module, rank: int, wanted: Callable[[str], bool]) -> int:
    """Lets the matrices of linear and attention layers learn by low-rank updates; returns how many those are.

    ``wanted`` is asked with the full name of each matrix. Those that are taken no longer learn themselves.
    """
    found = [
        (module, name)
        for path, module in model.named_modules()
        for name in ("weight", "in_proj_weight")
        if _is_matrix(module, name) and wanted(f"{path}.{name}")
    ]
    for module, name in found:
        weight = getattr(module, name)
        weight.requires_grad_(False)
        parametrize.register_parametrization(module, name, LowRank(weight, rank))
    return len(found)


def merge_low_rank(model: nn.Module) -> None:
    """Puts the sums in the place of the matrices: the same function, with the parameters of the original model."""
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for name in list(module.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _is_matrix(module: nn.Module, name: str) -> bool:
    is_layer = isinstance(module, nn.Linear if name == "weight" else nn.MultiheadAttention)
    weight = getattr(module, name, None) if is_layer else None
    return isinstance(weight, Tensor) and weight.ndim == 2
