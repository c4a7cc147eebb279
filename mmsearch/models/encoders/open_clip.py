"""The encoder for models of open_clip, on torch: loading, images, texts. Nothing here reaches the network.

Importing this module imports torch; `open_clip_files` does so only when such a model is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from mmsearch.core.errors import EncoderError
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import EncoderOptions, FloatArray
from mmsearch.models.encoders.image_export import checked_pixels
from mmsearch.models.encoders.preparation import Preparation, triple
from mmsearch.models.encoders.registry import DIRECTORY_PREFIX
from mmsearch.models.encoders.tokenizer import ClipTokenizer, HubTokenizer, TextTokenizer, TokenArray, end_positions
from mmsearch.models.encoders.torch_encoder import TorchEncoder, make_torchvision_importable, offline
from mmsearch.models.encoders.torch_modules import ImageModule, unit_rows
from mmsearch.models.encoders.weights import hub_file, missing

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmsearch.models.encoders.open_clip_files import LocalModel


class OpenClipEncoder(TorchEncoder):
    """Both encoders of one open_clip model: float32 on a CPU, bfloat16 or float16 on a GPU.

    ``prepare_image`` resizes and crops with the model's own transform and gives (h, w, 3) uint8; scaling and
    normalisation happen on the device, so that a quarter of the bytes travel.

    Raises (on construction):
        ModelMissing: the tokenizer is not on this machine.
        EncoderError: the weights do not fit their configuration, or the device does not exist.
    """

    def __init__(self, local: LocalModel, options: EncoderOptions | None = None) -> None:
        options = options or EncoderOptions()
        super().__init__(options)
        self.files: LocalModel = local
        self.directory = local.directory
        model, config = load_model(local)
        self.tokenizer = load_tokenizer(local, config)
        self.spec = _spec(local, model, config)
        cfg = model.visual.preprocess_cfg
        self.preparation: Preparation = Preparation.of_open_clip(cfg)
        self._mean, self._std = triple(cfg["mean"]), triple(cfg["std"])
        self.input_size = max(self.preparation.height, self.preparation.width)
        self.max_text_tokens = self.tokenizer.context_length
        model.requires_grad_(False)
        # The spec was read in float32: 4.605 (the logarithm of the usual scale, 100) is not a bfloat16.
        self.model = _fuse(model).to(device=self.device, dtype=self._dtype)
        self.text_module = text_module(self.model)
        self._image_encoder: Callable[[torch.Tensor], torch.Tensor] = self.model.encode_image
        if options.compile:
            self._image_encoder = torch.compile(self._image_encoder)

    def prepare_image(self, image: Image) -> npt.NDArray[np.generic]:
        """Resized and cropped as the model wants it: (h, w, 3) uint8."""
        return self.preparation(image)

    def encode_prepared(self, inputs: npt.NDArray[np.generic]) -> FloatArray:
        """(n, h, w, 3) uint8 to (n, dim) rows of length 1."""
        return self._encoded(checked_pixels(inputs, self.image_shape), self._image_rows)

    def patch_scores(self, image: Image, vector: FloatArray) -> FloatArray | None:
        """See `Encoder.patch_scores`: for open_clip's own vision transformers (`mmsearch.models.encoders.patches`)."""
        from mmsearch.models.encoders.patches import patch_scores

        height, width, _ = self.image_shape
        prepared = self.prepare_image(image.resize((width, height)))  # squeezed: nothing is cut off or filled in
        with self._lock, torch.inference_mode():
            wanted = torch.from_numpy(np.asarray(vector, dtype=np.float32)).to(self.device)
            scores = patch_scores(self.model.visual, self.normalised(prepared[None].astype(np.uint8)), wanted)
            parts: FloatArray | None = None if scores is None else scores.cpu().numpy()
        return parts

    def image_module_on_cpu(self) -> ImageModule:
        """See :meth:`TorchEncoder.image_module_on_cpu`."""
        # channels_last, which torch likes, would be written into the graph as transpositions.
        model = (
            self.model.to(memory_format=torch.contiguous_format) if self._is_whole else _fuse(load_model(self.files)[0])
        )
        return ImageModule(model, model.encode_image, self._mean, self._std)

    def text_module_on_cpu(self) -> TextModule:
        """See :meth:`TorchEncoder.text_module_on_cpu`."""
        return self.text_module if self._is_whole else text_module(load_model(self.files)[0])

    def text_inputs(self, texts: Sequence[str]) -> list[TokenArray]:
        """See :meth:`TorchEncoder.text_inputs`."""
        return [self.tokenizer(texts)]

    def reference_text_rows(self, texts: Sequence[str]) -> FloatArray:
        """See :meth:`TorchEncoder.reference_text_rows`."""
        model = self.model if self._is_whole else load_model(self.files)[0]
        with torch.no_grad():
            features = model.encode_text(torch.from_numpy(self.tokenizer(texts)))
            rows: FloatArray = unit_rows(features).numpy()
        return rows

    def saved_tokenizer(self, directory: Path) -> dict[str, Any] | None:
        """See :meth:`TorchEncoder.saved_tokenizer`."""
        return self.tokenizer.save(directory)

    @property
    def _is_whole(self) -> bool:
        return self.device.type == "cpu"

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """n texts to (n, dim) rows of length 1."""
        tokens = self.tokenizer(texts)
        # Short texts with short ones: a causal encoder is run no further than the longest of its batch.
        order = np.argsort(self.text_module.lengths(tokens), kind="stable")
        rows = self._in_batches(tokens[order], self._text_rows)
        return rows[np.argsort(order)]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special ones included, before it is cut."""
        return self.tokenizer.count(text)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of one prepared image: height, width, 3."""
        return self.preparation.height, self.preparation.width, 3

    def normalised(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        """(n, h, w, 3) uint8 to what the image encoder takes, (n, 3, h, w) on the device."""
        return self._pixels(images, self._mean, self._std)

    def _image_rows(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        features = self._image_encoder(self.normalised(images))
        return unit_rows(features)

    def _text_rows(self, tokens: TokenArray) -> torch.Tensor:
        longest = int(self.text_module.lengths(tokens).max())
        rows: torch.Tensor = self.text_module(self._to_device(tokens[:, :longest]))
        return rows


def _spec(local: LocalModel, model: Any, config: dict[str, Any]) -> EncoderSpec:
    cfg = model.visual.preprocess_cfg
    height, width = _pair(cfg["size"])
    numbers = " ".join(f"{key} {','.join(f'{v:.6g}' for v in triple(cfg[key]))}" for key in ("mean", "std"))
    bias = None if getattr(model, "logit_bias", None) is None else float(model.logit_bias.item())
    return EncoderSpec(
        name=local.name,
        digest=local.digest,
        dim=int(config["embed_dim"]),
        preprocessing=f"{height}x{width} {cfg['resize_mode']} {cfg['interpolation']} {numbers}",
        score_type="cosine" if bias is None else "sigmoid",
        logit_scale=float(model.logit_scale.exp().item()),
        logit_bias=bias,
    )


def _fuse(model: Any) -> Any:
    """Merges the training-time branches of MobileCLIP's convolutions: the same function, half as long."""
    if any(hasattr(module, "reparameterize") for module in model.visual.modules()):
        import timm.utils

        reparameterize: Any = timm.utils.__dict__["reparameterize_model"]
        model.visual = reparameterize(model.visual, inplace=True).to(memory_format=torch.channels_last)
    return model


class TextModule(torch.nn.Module):
    """Any text encoder, run over its whole context: ids (n, context), int64, to rows (n, dim), float32."""

    cuts = False
    """Whether rows may be cut after the longest text of a batch."""
    end_id: int | None = None

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Ids (n, context) to rows (n, dim)."""
        return torch.nn.functional.normalize(self.model.encode_text(tokens).float(), dim=-1)

    def lengths(self, tokens: TokenArray) -> npt.NDArray[np.int64]:
        """How many leading ids of each row decide its vector."""
        return np.full(len(tokens), tokens.shape[1], dtype=np.int64)


class CausalTextModule(TextModule):
    """A transformer in which no token sees a later one, and whose vector is read at the end of the text.

    What follows the end changes nothing, so rows may be as short as the longest text of the batch: a query of
    five words then costs a tenth of the full context of 77. open_clip's own ``encode_text`` insists on the
    full length; this is the same computation with the position table and the mask cut to the length given.
    """

    cuts = True

    def __init__(self, model: Any, parts: Any, pool: str, end_id: int) -> None:
        super().__init__(model)
        self.parts = parts
        self.end_id = end_id if pool == "eos" else None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Ids (n, length), length up to the context, to rows (n, dim)."""
        parts = self.parts
        length = tokens.shape[1]
        dtype = parts.positional_embedding.dtype
        x = parts.token_embedding(tokens).to(dtype) + parts.positional_embedding[:length]
        x = parts.ln_final(parts.transformer(x, attn_mask=parts.attn_mask[:length, :length].to(dtype)))
        at = tokens.argmax(dim=-1) if self.end_id is None else (tokens == self.end_id).int().argmax(dim=-1)
        x = x[torch.arange(x.shape[0], device=x.device), at]
        projection = parts.text_projection
        if isinstance(projection, torch.nn.Linear):
            x = projection(x)
        elif projection is not None:
            x = x @ projection
        return torch.nn.functional.normalize(x.float(), dim=-1)

    def lengths(self, tokens: TokenArray) -> npt.NDArray[np.int64]:
        """Up to and with the end of the text."""
        return end_positions(tokens, self.end_id) + 1


def text_module(model: Any) -> TextModule:
    """The text encoder of ``model``, in the form that can be cut where that is the same computation."""
    parts = getattr(model, "text", model)
    pool = getattr(parts, "pool_type", None) or getattr(parts, "text_pool_type", None)
    needed = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
    causal = getattr(parts, "attn_mask", None) is not None and all(hasattr(parts, name) for name in needed)
    if not causal or pool not in ("argmax", "eos") or getattr(parts, "cls_emb", None) is not None:
        return TextModule(model)
    end_id = getattr(parts, "eos_id", None) or getattr(parts, "text_eos_id", None) or 2
    return CausalTextModule(model, parts, pool, int(end_id))


def load_model(local: LocalModel) -> tuple[Any, dict[str, Any]]:
    """The model in float32 on the CPU, in evaluation mode, and its configuration."""
    open_clip = import_open_clip()
    with offline():
        try:
            if local.directory is not None:
                name = DIRECTORY_PREFIX + str(local.directory)
                model = open_clip.create_model(name, require_pretrained=True)
                return model.eval(), open_clip.get_model_config(name)
            tag = open_clip.get_pretrained_cfg(local.architecture, local.tag)
            model = open_clip.create_model(
                local.architecture,
                pretrained=str(local.checkpoint),
                require_pretrained=True,
                # open_clip only warns when a tag was trained with QuickGELU and the name says nothing of it.
                force_quick_gelu=tag.get("quick_gelu", False),
                force_preprocess_cfg=tag,
            )
            return model.eval(), open_clip.get_model_config(local.architecture)
        except Exception as error:
            reason = " ".join(str(error).split())
            if isinstance(error, ImportError) and "transformers" in str(error):
                raise EncoderError(f"{local.name} needs the package transformers: pip install transformers") from error
            raise EncoderError(f"{local.name} cannot be loaded from {local.checkpoint}: {reason}") from error


def load_tokenizer(local: LocalModel, config: dict[str, Any]) -> TextTokenizer:
    """The tokenizer that the model was trained with.

    Raises:
        ModelMissing: it lies on the hub and was not fetched.
        EncoderError: it is of a kind that neither mmsearch nor the installed packages can run.
    """
    text = config["text_cfg"]
    length = int(text.get("context_length", 77))
    options = dict(text.get("tokenizer_kwargs") or {})
    hub_name = str(text.get("hf_tokenizer_name") or "").removeprefix("hf-hub:")
    if set(options) - {"clean", "strip_sep_token"} or text.get("tokenizer_mode"):
        raise EncoderError(f"{local.name} has a tokenizer with the unknown settings {text}; use another model")
    if not hub_name:
        return ClipTokenizer.from_open_clip(length, **options)
    if local.repo is None and local.directory is not None:
        path: Path | None = local.directory / "tokenizer.json"
    else:
        path = hub_file(hub_name, "tokenizer.json")
    if path is None or not path.is_file():
        if path is not None:
            raise EncoderError(f"{local.directory} holds no tokenizer.json, which {local.name} needs beside it")
        raise missing(local.name)
    return HubTokenizer.from_directory(path.parent, length, **options)


def pretrained_places() -> dict[str, tuple[str, str]]:
    """Every ``ARCHITECTURE/TAG`` of the installed open_clip: hub repository and file name (may be empty)."""
    open_clip = import_open_clip()
    places = {}
    for architecture, tag in open_clip.list_pretrained():
        place = open_clip.get_pretrained_cfg(architecture, tag).get("hf_hub")
        if place:
            repo, _, filename = place.rpartition("/")
            places[f"{architecture}/{tag}"] = (repo, filename)
    return places


def import_open_clip() -> Any:
    """The open_clip package, also where torch is a CPU build and torchvision is not."""
    make_torchvision_importable()
    import open_clip

    return open_clip


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
