"""The encoder for models of open_clip, on torch. Nothing here reaches the network.

Importing this module imports torch; the registry does so only when such a model is opened.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from mmsearch.core.errors import EncoderError, VectorError
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import Encoder, EncoderOptions, FloatArray
from mmsearch.models.encoders.open_clip_loading import load_model, load_tokenizer
from mmsearch.models.encoders.text_module import text_module
from mmsearch.models.encoders.tokenizer import TokenArray
from mmsearch.models.encoders.weights import LocalModel

if TYPE_CHECKING:
    from PIL.Image import Image

# Measured: on a CPU small batches are faster (the activations stay in the caches); a GPU needs many images.
_BATCH_SIZE = {"cpu": 16, "mps": 32, "cuda": 256}
_WIDEST = 16


class OpenClipEncoder(Encoder):
    """Both encoders of one open_clip model: float32 on a CPU, bfloat16 or float16 on a GPU.

    ``prepare_image`` resizes and crops with the model's own transform and gives (h, w, 3) uint8; scaling and
    normalisation happen on the device, so that a quarter of the bytes travel.

    Raises (on construction):
        ModelMissing: the tokenizer is not on this machine.
        EncoderError: the weights do not fit their configuration, or the device does not exist.
    """

    def __init__(self, local: LocalModel, options: EncoderOptions | None = None) -> None:
        options = options or EncoderOptions()
        if options.threads:
            torch.set_num_threads(options.threads)
        self.local, self.directory = local, local.directory
        self.device = choose_device(options.device)
        model, config = load_model(local)
        self.tokenizer = load_tokenizer(local, config)
        self.spec = _spec(local, model, config)
        self._transform, self._mean, self._std = _preprocessing(model.visual.preprocess_cfg)
        self.input_size = max(_pair(model.visual.preprocess_cfg["size"]))
        self.batch_size = options.batch_size or _BATCH_SIZE[self.device.type]
        self.max_text_tokens = self.tokenizer.context_length
        self._lock = threading.Lock()
        # Read above in float32: 4.605 (the logarithm of the usual scale, 100) is not a bfloat16.
        self._dtype = _dtype(self.device)
        model.requires_grad_(False)
        self.model = _fuse(model).to(device=self.device, dtype=self._dtype)
        self.text_module = text_module(self.model)
        self._image_encoder: Callable[[torch.Tensor], torch.Tensor] = self.model.encode_image
        if options.compile:
            self._image_encoder = torch.compile(self._image_encoder)

    def prepare_image(self, image: Image) -> npt.NDArray[np.generic]:
        """Resized and cropped as the model wants it: (h, w, 3) uint8."""
        width, height = image.size
        if max(width, height) > _WIDEST * min(width, height) and self._crops:
            # Only the middle square survives; scaling a 1 × 5,000 image up first would take gigabytes.
            half = 2 * min(width, height)
            x, y = width // 2, height // 2
            image = image.crop((max(x - half, 0), max(y - half, 0), min(x + half, width), min(y + half, height)))
        return np.asarray(self._transform(image))

    def encode_prepared(self, inputs: npt.NDArray[np.generic]) -> FloatArray:
        """(n, h, w, 3) uint8 to (n, dim) rows of length 1."""
        expected = self.image_shape
        if inputs.shape[1:] != expected or inputs.dtype != np.uint8:
            raise VectorError(
                f"prepared images have the shape {inputs.shape} and type {inputs.dtype}; expected (n,"
                f" {', '.join(map(str, expected))}) uint8, as prepare_image gives them"
            )
        return self._in_batches(inputs, self._image_rows)

    def patch_scores(self, image: Image, vector: FloatArray) -> FloatArray | None:
        """See `Encoder.patch_scores`: for open_clip's own vision transformers (`mmsearch.models.encoders.patches`)."""
        from mmsearch.models.encoders.patches import patch_scores

        height, width, _ = self.image_shape
        prepared = self.prepare_image(image.resize((width, height)))  # squeezed: nothing is cut off or filled in
        with self._lock, torch.inference_mode():
            wanted = torch.from_numpy(np.asarray(vector, dtype=np.float32)).to(self.device)
            scores = patch_scores(self.model.visual, self.normalised(prepared[None].astype(np.uint8)), wanted)
            found: FloatArray | None = None if scores is None else scores.cpu().numpy()
        return found

    def prepare_for_queries(self) -> None:
        """Exports the text encoder, so that a query needs no torch."""
        from mmsearch.models.encoders.text_export import export_text_encoder

        export_text_encoder(self)

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """n texts to (n, dim) rows of length 1."""
        tokens = self.tokenizer(texts)
        # Short texts with short ones: a causal tower is run no further than the longest of its batch.
        order = np.argsort(self.text_module.lengths(tokens), kind="stable")
        rows = self._in_batches(tokens[order], self._text_rows)
        return rows[np.argsort(order)]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special ones included, before it is cut."""
        return self.tokenizer.count(text)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of one prepared image: height, width, 3."""
        return (*_pair(self.model.visual.preprocess_cfg["size"]), 3)

    @property
    def _crops(self) -> bool:
        return bool(self.model.visual.preprocess_cfg["resize_mode"] == "shortest")

    def _in_batches(self, inputs: npt.NDArray[Any], encode: Callable[[npt.NDArray[Any]], torch.Tensor]) -> FloatArray:
        """Runs ``encode`` over slices; when memory runs out, halves the batch size for good, tries again."""
        rows = np.zeros((len(inputs), self.spec.dim), dtype=np.float32)
        start = 0
        while start < len(inputs):
            batch = inputs[start : start + self.batch_size]
            try:
                with self._lock, torch.inference_mode():
                    found = encode(batch).float().cpu().numpy()
            except Exception as error:
                if not _out_of_memory(error):
                    raise EncoderError(f"{self.spec.name} failed on {self.device}: {error}") from error
                if len(batch) == 1:
                    raise EncoderError(
                        f"{self.spec.name} needs more memory than {self.device} has, even for one input;"
                        " use another device (--device cpu) or a smaller model"
                    ) from error
                found = None
            if found is None:  # outside of `except`: the traceback there still holds the tensors of the failure
                self.batch_size = max(1, min(self.batch_size, len(batch)) // 2)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            rows[start : start + len(batch)] = found
            start += len(batch)
        return rows

    def normalised(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        """(n, h, w, 3) uint8 to what the image encoder takes, (n, 3, h, w) on the device."""
        pixels = self._to_device(images).permute(0, 3, 1, 2).to(torch.float32) / 255
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self._mean, self._std))
        return ((pixels - mean) / std).to(self._dtype)

    def _image_rows(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        features = self._image_encoder(self.normalised(images))
        return torch.nn.functional.normalize(features.float(), dim=-1)

    def _text_rows(self, tokens: TokenArray) -> torch.Tensor:
        longest = int(self.text_module.lengths(tokens).max())
        rows: torch.Tensor = self.text_module(self._to_device(tokens[:, :longest]))
        return rows

    def _to_device(self, array: npt.NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def _spec(local: LocalModel, model: Any, config: dict[str, Any]) -> EncoderSpec:
    cfg = model.visual.preprocess_cfg
    height, width = _pair(cfg["size"])
    numbers = " ".join(f"{key} {','.join(f'{v:.6g}' for v in _triple(cfg[key]))}" for key in ("mean", "std"))
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


def _preprocessing(cfg: dict[str, Any]) -> tuple[Callable[[Image], Image], list[float], list[float]]:
    """The model's own transform up to where pixels become numbers, and how it normalises them."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    steps = image_transform_v2(PreprocessCfg(**cfg), is_train=False).transforms
    if [type(step).__name__ for step in steps[-2:]] != ["MaybeToTensor", "Normalize"]:
        raise EncoderError(f"the installed open_clip has transforms of an unknown form: {steps}")

    def resize_and_crop(image: Image) -> Image:
        for step in steps[:-2]:
            image = step(image)
        return image

    return resize_and_crop, _triple(cfg["mean"]), _triple(cfg["std"])


def _fuse(model: Any) -> Any:
    """Merges the training-time branches of MobileCLIP's convolutions: the same function, half as long."""
    if any(hasattr(module, "reparameterize") for module in model.visual.modules()):
        import timm.utils

        reparameterize: Any = timm.utils.__dict__["reparameterize_model"]
        model.visual = reparameterize(model.visual, inplace=True).to(memory_format=torch.channels_last)
    return model


def choose_device(name: str) -> torch.device:
    """``auto`` takes a GPU where there is one.

    Raises:
        EncoderError: there is no such device here.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if name not in _BATCH_SIZE:
        raise EncoderError(f"there is no device {name!r}; choose auto, cpu, cuda or mps")
    if (name == "cuda" and not cuda) or (name == "mps" and not mps):
        raise EncoderError(f"torch {torch.__version__} finds no {name} device here; use --device cpu or auto")
    return torch.device(name)


def _dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8:
        return torch.bfloat16
    return torch.float16


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))


def _triple(value: float | Sequence[float]) -> list[float]:
    return [float(value)] * 3 if isinstance(value, (int, float)) else [float(v) for v in value]
