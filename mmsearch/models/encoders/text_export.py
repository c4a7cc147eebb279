"""Text encoders of open_clip and transformers on ONNX Runtime, so that a query imports neither torch nor those.

`mmsearch.models.encoders.exports` says where they lie. The graph maps ``tokens`` (n, length) int64, and ``mask`` of the
same shape where the model reads one, to ``rows`` (n, dim) float32 of length 1.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError
from mmsearch.core.system import session_settings
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import EncoderOptions, FloatArray
from mmsearch.models.encoders.exports import Exports, ModelFiles, check_cosine
from mmsearch.models.encoders.plain_tokenizer import PlainTokenizer
from mmsearch.models.encoders.tokenizer import TextTokenizer, TokenArray, end_positions, open_tokenizer

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from mmsearch.models.encoders.torch_encoder import TorchEncoder

# What earlier versions exported is still read, so the files are still called as they called them.
TEXT_EXPORTS = Exports("text_encoders", "tower.json", "the text encoder")
_GRAPH = "tower.onnx"
_BATCH = 32
CHECKED_TEXTS = (
    "a",
    "a photo of a mountain lake at dawn",
    "zwei Hunde, 3 Katzen & ein Fahrrad im Regen " * 12,
)
_log = logging.getLogger(__name__)


class TextEncoder:
    """An exported text encoder, whose graph opens when it is first used. May be called from several threads."""

    def __init__(self, directory: Path, content: dict[str, Any], options: EncoderOptions) -> None:
        self._graph, self._threads = directory / _GRAPH, options.threads
        self._opening = threading.Lock()
        self._opened: InferenceSession | None = None
        self.spec = EncoderSpec(**content["spec"])
        self.input_size = int(content["input_size"])
        self.tokenizer = _open_tokenizer(directory, content["tokenizer"])
        self._cuts, self._end_id = bool(content["cuts"]), content["end_id"]

    def open(self) -> InferenceSession:
        """Opens the graph, unless it is open.

        Raises:
            EncoderError: onnxruntime cannot open it.
        """
        import onnxruntime

        with self._opening:
            if self._opened is None:
                settings = session_settings(self._threads, spins=True)
                try:
                    self._opened = onnxruntime.InferenceSession(
                        str(self._graph), settings, providers=["CPUExecutionProvider"]
                    )
                except Exception as error:  # onnxruntime's exceptions share no base class of their own
                    raise EncoderError(f"{self._graph} cannot be opened: {' '.join(str(error).split())}") from error
            return self._opened

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """n texts to (n, dim) rows of length 1."""
        session = self.open()
        has_mask = any(one.name == "mask" for one in session.get_inputs())
        tokens, lengths = self._tokens(texts)
        rows = np.zeros((len(texts), self.spec.dim), dtype=np.float32)
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(texts), _BATCH):
            batch = order[start : start + _BATCH]
            longest = lengths[batch].max() if self._cuts else tokens.shape[1]
            inputs = {"tokens": tokens[batch, :longest]}
            if has_mask:
                inputs["mask"] = (np.arange(longest) < lengths[batch, None]).astype(np.int64)
            rows[batch] = session.run(None, inputs)[0]
        return rows

    def _tokens(self, texts: Sequence[str]) -> tuple[TokenArray, npt.NDArray[np.int64]]:
        """Ids (n, context), and how many of each row belong to the text."""
        if isinstance(self.tokenizer, PlainTokenizer):
            return self.tokenizer.ids_and_lengths(texts)
        tokens = self.tokenizer(texts)
        if self._cuts:
            return tokens, end_positions(tokens, self._end_id) + 1
        return tokens, np.full(len(tokens), tokens.shape[1], dtype=np.int64)


def open_text_encoder(
    model: ModelFiles, options: EncoderOptions | None = None, *, opens_graph: bool = True
) -> TextEncoder | None:
    """The exported text encoder of a model on this machine; ``None`` if there is none that can be used.

    Without ``opens_graph`` its graph opens with the first text, and only then shows whether it can be used.
    """
    content = TEXT_EXPORTS.find(model)
    if content is None:
        return None
    directory = TEXT_EXPORTS.directory(model)
    try:
        encoder = TextEncoder(directory, content, options or EncoderOptions())
        if opens_graph:
            encoder.open()
        return encoder
    except Exception as error:  # whatever is wrong with a cache, the whole model answers as well
        _log.warning("the exported text encoder in %s cannot be used: %s", directory, error)
        return None


def export_text_encoder(encoder: TorchEncoder) -> Path | None:
    """Exports the text encoder of a model and returns its directory; costs seconds, once for each model.

    It is compared with what the model's own library computes first (cosine ≥ 0.9999). ``None``,
    with a line in the log, where it cannot be exported or kept: querying then goes on with torch.
    """
    if open_text_encoder(encoder.files) is None:
        return TEXT_EXPORTS.make(encoder.files, lambda scratch: _export(encoder, scratch))
    return TEXT_EXPORTS.directory(encoder.files)


def _export(encoder: TorchEncoder, directory: Path) -> dict[str, Any]:
    import torch

    from mmsearch.models.encoders.graphs import write_graph

    module = encoder.text_module_on_cpu()
    tokenizer = encoder.saved_tokenizer(directory)
    if tokenizer is None:
        raise EncoderError("its tokenizer cannot be saved")
    content = {
        "spec": asdict(encoder.spec),
        "input_size": encoder.input_size,
        "tokenizer": tokenizer,
        "cuts": module.cuts,
        "end_id": module.end_id,
    }
    example = [torch.from_numpy(part) for part in encoder.text_inputs(CHECKED_TEXTS)]
    # The traced example must have sizes that no fixed one of the model equals by chance.
    context = example[0].shape[1]
    axes = {0: (1, 1 << 20), **({1: (2, context)} if module.cuts else {})}
    length = min(7, context) if module.cuts else context
    traced = [part[:, :length] for part in example]
    names = ["tokens", "mask"][: len(traced)]
    write_graph(module, traced, directory / _GRAPH, inputs=names, dynamic=[axes] * len(traced))
    expected = encoder.reference_text_rows(CHECKED_TEXTS)
    rows = TextEncoder(directory, content, EncoderOptions()).encode_texts(CHECKED_TEXTS)
    check_cosine(float(np.sum(rows * expected, axis=1).min()), "text")
    return content


def _open_tokenizer(directory: Path, options: dict[str, Any]) -> TextTokenizer:
    if options["kind"] == PlainTokenizer.kind:
        return PlainTokenizer.open(directory, options)
    return open_tokenizer(directory, options)
