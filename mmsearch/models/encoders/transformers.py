"""Dual encoders of Hugging Face transformers: CLIP, SigLIP, SigLIP 2 (also NaFlex) and Chinese-CLIP.

The package is an extra: ``pip install "mmsearch[hf]"``. It and torch are imported when a model is opened. Nothing here
reaches the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError, ModelMissing
from mmsearch.core.extras import install_hint
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import Encoder, EncoderFamily, EncoderOptions, FloatArray
from mmsearch.models.encoders.image_export import checked_pixels
from mmsearch.models.encoders.plain_tokenizer import PlainTokenizer, cleaned
from mmsearch.models.encoders.preparation import Preparation
from mmsearch.models.encoders.registry import DIRECTORY_PREFIX
from mmsearch.models.encoders.torch_encoder import TorchEncoder, make_torchvision_importable, offline
from mmsearch.models.encoders.weights import file_digest, hub_snapshot, missing, read_json

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from mmsearch.models.encoders.torch_modules import TransformersText

PREFIX = "hf:"
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_WEIGHTS = (r"model\.safetensors", r"model-\d+-of-\d+\.safetensors|model\.safetensors\.index\.json",
            r"pytorch_model\.bin", r"pytorch_model-\d+-of-\d+\.bin|pytorch_model\.bin\.index\.json")  # fmt: skip
"""The forms in which weights lie in a repository, best first."""
_OTHER_FILES = frozenset((
    "config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model",
    "tokenizer.model",
))  # fmt: skip


@dataclass(frozen=True)
class _TextRules:
    """What the text encoder of a family was trained on.

    ``fills``: texts are padded to the whole length, and the padding is read. ``longest``: tokens of a text at most, as
    far as the model has places for them. ``lower``: small letters only.
    """

    fills: bool = False
    longest: int = 1_000_000
    lower: bool = False


_RULES = {
    "clip": _TextRules(),
    "siglip": _TextRules(fills=True),
    "siglip2": _TextRules(fills=True, lower=True),
    "chinese_clip": _TextRules(longest=52),  # its BERT has 512 places, of which training used 52
}
"""By the ``model_type`` of ``config.json``."""
_HARD_TEXTS = (
    "", "a", "A photo of Two DOGS, on the beach!", "Käse & 日本 🎉 — “x”", "don't_stop  now\t(3.5%)\n", "ÀÉ ﬁ ½ Ⅷ ſ İ",
    "山 湖 狗 的照片", "</s> <pad> [SEP] <|endoftext|> <eos>", "word " * 300,
)  # fmt: skip
"""With which a tokenizer is compared before the one of transformers is done without."""


class TransformersFamily(EncoderFamily):
    """``hf:ORG/NAME`` in the local cache of the hub, and directories in the format of transformers."""

    is_on_hub = True

    def canonical(self, name: str) -> str:
        """The same name.

        Raises:
            EncoderError: it has not the form ``hf:ORG/NAME``.
        """
        repo_of(name)
        return name

    def check(self, name: str) -> None:
        """See :meth:`EncoderFamily.check`."""
        locate(name)

    def open(self, name: str, options: EncoderOptions, *, texts_only: bool = False) -> Encoder:
        """See :meth:`EncoderFamily.open`."""
        from mmsearch.models.encoders.exported import open_best

        files = HubFiles(name, locate(name))
        whole = lambda: TransformersEncoder(files.directory, name, options)  # noqa: E731
        return open_best(files, options, whole, texts_only=texts_only)


FAMILY = TransformersFamily()


@dataclass(frozen=True)
class HubFiles:
    """A model in the format of transformers that is whole on this machine."""

    name: str
    directory: Path

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the weights: of the file, or of the digests of its parts in order of their names."""
        return _digest(self.directory)

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the same weights would be used in another way: another name, configuration or tokenizer."""
        others = [self.directory / name for name in sorted(_OTHER_FILES) if (self.directory / name).is_file()]
        lines = [self.name, *(f"{path.name} {file_digest(path)}" for path in others)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class TransformersEncoder(TorchEncoder):
    """Both encoders of one model from a directory in the format of transformers.

    ``prepare_image`` resizes and crops with the model's own image processor and gives (h, w, 3) uint8; scaling and
    normalisation happen on the device. A NaFlex model keeps the shape of a picture and takes a sequence of patches:
    then it gives uint8 (1 + patches, 3 · side²), of which the first row has the rows and columns of patches, less 1.

    Raises (on construction):
        ModelMissing: transformers is not installed.
        EncoderError: the directory holds no model of a family that is known, or it cannot be loaded.
    """

    def __init__(self, directory: Path, name: str, options: EncoderOptions | None = None) -> None:
        options = options or EncoderOptions()
        super().__init__(options)
        import torch

        self.directory: Path = directory
        self.files = HubFiles(name, directory)
        kind = str(read_json(directory / "config.json").get("model_type"))
        if kind not in _RULES:
            raise EncoderError(f"{name} is a model of the type {kind}; expected one of {', '.join(_RULES)}")
        model, self._tokenizer, self._processor = _load(directory, name)
        text = model.config.text_config
        rules = _RULES["siglip2" if kind == "siglip" and _has_words_of_gemma(directory, text.vocab_size) else kind]
        self._rules = rules
        self._reads_class_token = kind == "chinese_clip"
        self._has_mask = "attention_mask" in self._tokenizer.model_input_names
        self._tokenizing = threading.Lock()  # a tokenizer remembers how it last cut and padded
        own_limit = min(int(self._tokenizer.model_max_length), int(text.max_position_embeddings))
        self.max_text_tokens = min(rules.longest, own_limit)
        self._patches = int(self._processor.max_num_patches) if kind == "siglip2" else 0
        bias = getattr(model, "logit_bias", None)
        self.spec = EncoderSpec(
            name=name,
            digest=self.files.digest,
            dim=int(getattr(model.config, "projection_dim", 0) or model.config.vision_config.hidden_size),
            preprocessing=_describe(self._processor, self._patches),
            score_type="cosine" if bias is None else "sigmoid",
            logit_scale=float(model.logit_scale.detach().exp().item()),
            logit_bias=None if bias is None else float(bias.detach().item()),
        )
        self._mean, self._std = _normalisation(self._processor)
        self.preparation = None if self._patches else Preparation.of_transformers(self._processor)
        self._shape, self.input_size = self._expected(name)
        self.model = model.requires_grad_(False).to(device=self.device, dtype=self._dtype)
        self._text_module = self._text_module_of(self.model)
        self._image_encoder: Callable[..., Any] = self.model.get_image_features
        if options.compile:
            self._image_encoder = torch.compile(self._image_encoder)

    def prepare_image(self, image: Image) -> npt.NDArray[np.generic]:
        """As the class says."""
        if self.preparation is not None:
            return self.preparation(image)
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        given = self._processor(images=rgb, do_rescale=False, do_normalize=False, return_tensors="np")
        pixels: npt.NDArray[np.uint8] = np.asarray(given["pixel_values"][0]).astype(np.uint8)
        if self._patches:
            shape = np.zeros((1, pixels.shape[1]), dtype=np.uint8)
            shape[0, :2] = np.asarray(given["spatial_shapes"][0]) - 1
            pixels = np.concatenate([shape, pixels])
        return pixels if self._patches else pixels.transpose(1, 2, 0)

    def encode_prepared(self, inputs: npt.NDArray[np.generic]) -> FloatArray:
        """Stacked outputs of ``prepare_image`` to (n, dim) rows of length 1.

        Raises:
            VectorError: ``inputs`` has another shape or type.
        """
        pixels = checked_pixels(inputs, self._shape)
        return self._encoded(pixels, self._patch_rows if self._patches else self._image_rows)

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """n texts to (n, dim) rows of length 1."""
        if not texts:
            return np.zeros((0, self.spec.dim), dtype=np.float32)
        ids, mask = self._ids_and_mask(texts)
        order = np.argsort(mask.sum(axis=1), kind="stable")  # short texts with short ones: less is padded
        rows = self._in_batches(np.stack([ids, mask], axis=1)[order], self._text_rows)
        return rows[np.argsort(order)]

    def _ids_and_mask(
        self, texts: Sequence[str], *, fill: bool = False
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        with self._tokenizing:
            found = self._tokenizer(
                [self._cleaned(text) for text in texts],
                padding="max_length" if self._rules.fills or fill else "longest",
                truncation=True,
                max_length=self.max_text_tokens,
                return_tensors="np",
            )
        ids = np.asarray(found["input_ids"], dtype=np.int64)
        return ids, np.asarray(found.get("attention_mask", np.ones_like(ids)), dtype=np.int64)

    def image_module_on_cpu(self) -> torch.nn.Module:
        """See :meth:`TorchEncoder.image_module_on_cpu`."""
        from mmsearch.models.encoders.torch_modules import ImageModule

        model = self._model_on_cpu()
        return ImageModule(model, model.get_image_features, self._mean, self._std)

    def text_module_on_cpu(self) -> TransformersText:
        """See :meth:`TorchEncoder.text_module_on_cpu`."""
        return self._text_module_of(self._model_on_cpu())

    def _text_module_of(self, model: Any) -> TransformersText:
        from mmsearch.models.encoders.torch_modules import TransformersText

        return TransformersText(model, cuts=not self._rules.fills, reads_class_token=self._reads_class_token)

    def text_inputs(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """See :meth:`TorchEncoder.text_inputs`."""
        return list(self._ids_and_mask(texts, fill=True)[: 2 if self._has_mask else 1])

    def reference_text_rows(self, texts: Sequence[str]) -> FloatArray:
        """See :meth:`TorchEncoder.reference_text_rows`."""
        return self.encode_texts(texts)

    def saved_tokenizer(self, directory: Path) -> dict[str, Any] | None:
        """See :meth:`TorchEncoder.saved_tokenizer`. Only if it gives what that of transformers does."""
        plain = PlainTokenizer.of_transformers(self._tokenizer, self.max_text_tokens, lower=self._rules.lower)
        reads_places = self._has_mask or not self._rules.fills
        if plain is None or (reads_places and self._tokenizer.padding_side != "right"):
            return None
        ids, lengths = plain.ids_and_lengths(_HARD_TEXTS)
        theirs, mask = self._ids_and_mask(_HARD_TEXTS, fill=True)
        same = np.array_equal(ids, theirs) and (not self._has_mask or np.array_equal(lengths, mask.sum(axis=1)))
        counts = [plain.count(text) for text in _HARD_TEXTS] == [self.count_tokens(text) for text in _HARD_TEXTS]
        return plain.save(directory) if same and counts else None

    def _model_on_cpu(self) -> Any:
        return self.model if self.device.type == "cpu" else _load(self.directory, self.spec.name)[0]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special ones included, before it is cut."""
        with self._tokenizing:
            return len(self._tokenizer(self._cleaned(text), truncation=False, verbose=False)["input_ids"])

    def _cleaned(self, text: str) -> str:
        return cleaned(text, lower=self._rules.lower)

    def _expected(self, name: str) -> tuple[tuple[int, ...], int]:
        """The shape of one prepared image, and the shorter side that a picture must have to lose nothing."""
        from PIL import Image

        shapes = {self.prepare_image(Image.new("RGB", size)).shape for size in ((64, 48), (48, 64))}
        if len(shapes) > 1:
            raise EncoderError(f"{name} makes inputs of different shapes of pictures, {shapes}, which it cannot batch")
        shape = shapes.pop()
        side = round(int(self._processor.patch_size) * self._patches**0.5) if self._patches else max(shape[:2])
        return shape, side

    def _image_rows(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        from mmsearch.models.encoders.torch_modules import unit_rows

        return unit_rows(self._image_encoder(pixel_values=self._pixels(images, self._mean, self._std)))

    def _patch_rows(self, packed: npt.NDArray[np.uint8]) -> torch.Tensor:
        import torch

        from mmsearch.models.encoders.torch_modules import unit_rows

        shapes = self._to_device(packed[:, 0, :2].astype(np.int64) + 1)
        patches = self._to_device(packed[:, 1:].reshape(len(packed), self._patches, -1, 3)).to(torch.float32) / 255
        mean, std = (torch.tensor(v, device=self.device) for v in (self._mean, self._std))
        mask = torch.arange(self._patches, device=self.device) < shapes.prod(1, keepdim=True)
        normalised = ((patches - mean) / std).flatten(-2) * mask[..., None]
        return unit_rows(
            self._image_encoder(
                pixel_values=normalised.to(self._dtype), pixel_attention_mask=mask.int(), spatial_shapes=shapes
            )
        )

    def _text_rows(self, tokens: npt.NDArray[np.int64]) -> torch.Tensor:
        if not self._rules.fills:
            used = np.flatnonzero(tokens[:, 1].any(axis=0))
            tokens = tokens[:, :, used[0] : used[-1] + 1] if len(used) else tokens
        ids, mask = self._to_device(tokens[:, 0]), self._to_device(tokens[:, 1])
        rows: torch.Tensor = self._text_module(*([ids, mask] if self._has_mask else [ids]))
        return rows


def is_hub_name(name: str) -> bool:
    """Whether a name has the prefix ``hf:``."""
    return name.startswith(PREFIX)


def repo_of(name: str) -> str:
    """The repository of ``hf:ORG/NAME``.

    Raises:
        EncoderError: the name has another form.
    """
    repo = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or not _REPO.fullmatch(repo):
        raise EncoderError(
            f"{name} does not name a model; expected hf:ORG/NAME, such as hf:openai/clip-vit-base-patch32, or the path "
            "of a directory alone"
        )
    return repo


def wanted_files(files: Collection[str]) -> list[str]:
    """Of the files of a repository, those that opening the model needs; none where it has no weights."""
    weights = _weights(files)
    return [*weights, *sorted(_OTHER_FILES & set(files))] if weights else []


def _weights(files: Collection[str]) -> list[str]:
    for pattern in _WEIGHTS:
        found = sorted(file for file in files if re.fullmatch(pattern, file))
        if found:
            return found
    return []


def locate(name: str) -> Path:
    """The directory of a model that is whole on this machine."""
    if name.startswith(DIRECTORY_PREFIX):
        directory = Path(name.removeprefix(DIRECTORY_PREFIX))
        if not _is_whole(directory):
            raise ModelMissing(
                f"{directory} holds config.json but not all weights; put model.safetensors (or its parts, or"
                " pytorch_model.bin) beside it"
            )
        return directory
    snapshot = hub_snapshot(repo_of(name))
    if snapshot is None or not (snapshot / "config.json").is_file() or not _is_whole(snapshot):
        raise missing(name)
    return snapshot


def _is_whole(directory: Path) -> bool:
    weights = _weights([path.name for path in directory.iterdir()])
    index = next((file for file in weights if file.endswith(".index.json")), None)
    if index is not None:
        parts = set(read_json(directory / index).get("weight_map", {}).values())
        return bool(parts) and all((directory / part).is_file() for part in parts)
    return bool(weights)


def _digest(directory: Path) -> str:
    """Hex SHA-256 of the weights: of the file, or of the digests of its parts in order of their names."""
    files = [file for file in _weights([path.name for path in directory.iterdir()]) if not file.endswith(".json")]
    digests = [file_digest(directory / file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _has_words_of_gemma(directory: Path, vocabulary: int) -> bool:
    """SigLIP 2 of a fixed size has the class of SigLIP; the tokenizer, Gemma's with 256,000 tokens, tells them
    apart.
    """
    tokenizer = str(read_json(directory / "tokenizer_config.json").get("tokenizer_class"))
    return tokenizer.startswith(("Gemma", "Siglip2")) or vocabulary >= 200_000


def _load(directory: Path, name: str) -> tuple[Any, Any, Any]:
    """Model (float32, on the CPU, in evaluation mode), tokenizer and image processor."""
    try:
        import transformers as library
    except ImportError as error:
        raise ModelMissing(f"{name} needs the package transformers: {install_hint('hf')}") from error
    transformers: Any = library
    make_torchvision_importable()
    # Pillow's resizing everywhere: it is that of training, needs no torchvision, and gives the same on every machine.
    pillow: dict[str, Any] = {"use_fast": False} if transformers.__version__ < "5" else {"backend": "pil"}
    with offline(), quiet(transformers):
        try:
            place = str(directory)
            model = transformers.AutoModel.from_pretrained(place, local_files_only=True)
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
            processor = transformers.AutoImageProcessor.from_pretrained(place, local_files_only=True, **pillow)
        except Exception as error:
            reason = " ".join(str(error).split())
            if "sentencepiece" in reason.lower():
                raise ModelMissing(f"{name} needs the package sentencepiece: pip install sentencepiece") from error
            raise EncoderError(f"{name} cannot be loaded from {directory}: {reason}") from error
    return model.float().eval(), tokenizer, processor


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Inside, transformers writes neither log lines nor progress bars to the terminal."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _normalisation(processor: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the three colours, of pixels from 0 to 1."""
    scale = 255 * float(processor.rescale_factor) if processor.do_rescale else 255.0
    if not processor.do_normalize:
        return [0.0] * 3, [1 / scale] * 3
    return [float(v) / scale for v in processor.image_mean], [float(v) / scale for v in processor.image_std]


def _describe(processor: Any, patches: int) -> str:
    """The part of an encoder's identity that is not in its weights."""
    size = dict(processor.size or {}) if not patches else {}
    if patches:
        shape = f"up to {patches} patches of {processor.patch_size}"
    elif getattr(processor, "do_center_crop", False):
        crop = processor.crop_size
        shape = f"{crop['height']}x{crop['width']} of shortest {size.get('shortest_edge', size.get('height'))}"
    else:
        shape = f"{size.get('height')}x{size.get('width')} squash"
    mean, std = (",".join(f"{v:.6g}" for v in values) for values in _normalisation(processor))
    resample = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}.get(int(processor.resample), "other")
    return f"{shape} {resample} mean {mean} std {std}"
