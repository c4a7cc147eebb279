"""Text encoders of open_clip models on ONNX Runtime, so that a query imports neither torch nor open_clip.

It is exported once, beside the other things that mmsearch can make again:

    text_encoders/DIGEST-FINGERPRINT/   tower.onnx  tower.onnx.data  tokenizer.json  tower.json

The name of the directory follows from the weights on disk and from how they are used, so that the text encoder of
other weights is never found; ``tower.json``, written last, carries the encoder's identity.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError
from mmsearch.core.system import session_settings
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import Encoder, EncoderOptions, FloatArray
from mmsearch.models.encoders.tokenizer import TokenArray, end_positions, open_tokenizer
from mmsearch.models.encoders.weights import cache_dir, read_json, write_json

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmsearch.models.encoders.open_clip import OpenClipEncoder
    from mmsearch.models.encoders.open_clip_files import LocalModel

_FORMAT = 1
# What earlier versions exported is still read, so the files are still called as they called them.
_GRAPH = "tower.onnx"
_SETTINGS = "tower.json"
_BATCH = 32
_LOWEST_COSINE = 0.9999
_CHECKED_TEXTS = (
    "a",
    "a photo of a mountain lake at dawn",
    "zwei Hunde, 3 Katzen & ein Fahrrad im Regen " * 12,
)
_log = logging.getLogger(__name__)


class TextEncoder:
    """An exported text encoder. May be called from several threads."""

    def __init__(self, directory: Path, options: EncoderOptions) -> None:
        import onnxruntime

        settings = read_json(directory / _SETTINGS)
        self.spec = EncoderSpec(**settings["spec"])
        self.input_size = int(settings["input_size"])
        self.tokenizer = open_tokenizer(directory, settings["tokenizer"])
        self._cuts, self._end_id = bool(settings["cuts"]), settings["end_id"]
        self._session = onnxruntime.InferenceSession(
            str(directory / _GRAPH),
            session_settings(options.threads, spins=True),
            providers=["CPUExecutionProvider"],
        )

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """n texts to (n, dim) rows of length 1."""
        tokens = self.tokenizer(texts)
        lengths = self._lengths(tokens)
        rows = np.zeros((len(texts), self.spec.dim), dtype=np.float32)
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(texts), _BATCH):
            batch = order[start : start + _BATCH]
            rows[batch] = self._session.run(None, {"tokens": tokens[batch, : lengths[batch].max()]})[0]
        return rows

    def _lengths(self, tokens: TokenArray) -> npt.NDArray[np.int64]:
        if not self._cuts:
            return np.full(len(tokens), tokens.shape[1], dtype=np.int64)
        return end_positions(tokens, self._end_id) + 1


class TextFirstEncoder(Encoder):
    """An open_clip encoder whose texts go through the exported text encoder; an image loads the whole model."""

    def __init__(
        self, texts: TextEncoder, local: LocalModel, options: EncoderOptions, open_whole: Callable[[], OpenClipEncoder]
    ) -> None:
        self._texts, self.directory = texts, local.directory
        self._open_whole = open_whole
        self._whole: OpenClipEncoder | None = None
        self._lock = threading.Lock()
        self.spec = texts.spec
        self.input_size = texts.input_size
        self.batch_size = options.batch_size or 16
        self.max_text_tokens = texts.tokenizer.context_length

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """n texts to (n, dim) rows of length 1."""
        return self._texts.encode_texts(texts)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special ones included, before it is cut."""
        return self._texts.tokenizer.count(text)

    def prepare_image(self, image: Image) -> npt.NDArray[np.generic]:
        """As ``OpenClipEncoder.prepare_image``."""
        return self._load().prepare_image(image)

    def encode_prepared(self, inputs: npt.NDArray[np.generic]) -> FloatArray:
        """As ``OpenClipEncoder.encode_prepared``."""
        return self._load().encode_prepared(inputs)

    def patch_scores(self, image: Image, vector: FloatArray) -> FloatArray | None:
        """As ``OpenClipEncoder.patch_scores``."""
        return self._load().patch_scores(image, vector)

    def _load(self) -> OpenClipEncoder:
        with self._lock:
            if self._whole is None:
                whole = self._open_whole()
                if whole.spec != self.spec:
                    raise EncoderError(
                        f"the weights changed while they were in use: {self.spec.describe()} was opened,"
                        f" {whole.spec.describe()} is there now; open the encoder again"
                    )
                self._whole = whole
                self.batch_size = whole.batch_size
            return self._whole


def export_directory(local: LocalModel) -> Path:
    """Where the exported text encoder of a model lies, or would lie."""
    return cache_dir() / "text_encoders" / f"{local.digest[:24]}-{local.fingerprint[:8]}"


def open_text_encoder(local: LocalModel, options: EncoderOptions | None = None) -> TextEncoder | None:
    """The exported text encoder of a model on this machine; ``None`` if there is none that can be used."""
    directory = export_directory(local)
    settings = read_json(directory / _SETTINGS)
    if settings.get("format") != _FORMAT or settings["spec"]["digest"] != local.digest:
        return None
    try:
        return TextEncoder(directory, options or EncoderOptions())
    except Exception as error:  # whatever is wrong with a cache, the whole model answers as well
        _log.warning("the exported text encoder in %s cannot be used: %s", directory, error)
        return None


def export_text_encoder(encoder: OpenClipEncoder) -> Path | None:
    """Exports the text encoder of a model and returns its directory; costs seconds, once for each model.

    It is compared with open_clip's own ``encode_text`` first (cosine ≥ 0.9999). ``None``,
    with a line in the log, where it cannot be exported or kept: querying then goes on with torch.
    """
    directory = export_directory(encoder.local)
    if open_text_encoder(encoder.local) is not None:
        return directory
    failed = directory.with_name(directory.name + ".failed.json")
    versions = _versions()
    if read_json(failed).get("versions") == versions:
        return None  # it would take as long, and fail, again at every query
    scratch: Path | None = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix="new-"))
        _export(encoder, scratch)
        shutil.rmtree(directory, ignore_errors=True)
        scratch.replace(directory)
    except Exception as error:
        if open_text_encoder(encoder.local) is not None:
            return directory  # another process was faster
        _log.warning("the text encoder of %s cannot be exported: %s", encoder.spec.name, error)
        if not isinstance(error, OSError):  # a full disk may be empty tomorrow
            with contextlib.suppress(OSError):
                write_json(failed, {"versions": versions, "reason": str(error)})
        return None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return directory


def _export(encoder: OpenClipEncoder, directory: Path) -> None:
    import torch

    tokenizer = encoder.tokenizer.save(directory)
    if tokenizer is None:
        raise EncoderError("its tokenizer cannot be saved")
    module = encoder.text_module_on_cpu()
    tokens = torch.from_numpy(encoder.tokenizer(_CHECKED_TEXTS))
    # The traced example must have sizes that no fixed one of the model equals by chance.
    length = min(7, tokens.shape[1]) if module.cuts else tokens.shape[1]
    shapes: dict[int, Any] = {0: torch.export.Dim("texts", min=1, max=1 << 20)}
    if module.cuts:
        shapes[1] = torch.export.Dim("ids", min=2, max=tokens.shape[1])
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            module.eval(), (tokens[:, :length],), str(directory / _GRAPH), dynamo=True, verbose=False,
            dynamic_shapes=(shapes,), input_names=["tokens"], output_names=["rows"], external_data=True,
        )  # fmt: skip
    write_json(
        directory / _SETTINGS,
        {
            "format": _FORMAT,
            "spec": asdict(encoder.spec),
            "input_size": encoder.input_size,
            "tokenizer": tokenizer,
            "cuts": module.cuts,
            "end_id": module.end_id,
        },
    )
    with torch.no_grad():
        expected = torch.nn.functional.normalize(module.model.encode_text(tokens), dim=-1).numpy()
    rows = TextEncoder(directory, EncoderOptions()).encode_texts(_CHECKED_TEXTS)
    cosine = float(np.sum(rows * expected, axis=1).min())
    if not cosine >= _LOWEST_COSINE:
        raise EncoderError(f"the exported text encoder differs from the original: cosine {cosine:.5f}")


def _versions() -> list[str]:
    """What an export depends on, besides the model."""
    found = []
    for package in ("torch", "open_clip_torch", "onnxscript", "onnxruntime"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return [*found, f"format {_FORMAT}"]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns and logs of its own inner workings; none of it is for a user of a search engine."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
