"""The built-in encoder: two ONNX graphs that ship with the package and run on the CPU, without torch.

Its folder holds ``encoder.json``, which names everything else in it::

    {"format": 1, "name": "builtin", "digest": SHA-256 of digest_files, "digest_files": [file, ...],
     "dim": 896, "score_type": "cosine",
     "image": {"file": "image.onnx", "size": 260, "zoom": 0.94, "crop": 0.5, "batch_size": 8},
     "text": {"file": "text.onnx", "tokenizer": "tokenizer.json", "max_tokens": 256, "prompt": "{}"}}

Other weights in another folder of this layout are another encoder; the code is the same. The image graph maps
``pixels`` (n, size, size, 3) uint8 to ``vector`` (n, dim) float32; the text graph maps ``input_ids`` and
``attention_mask`` (n, length) int64 to ``vector``. Both give rows of length 1. Where a reranker is to be used, the
image graph also gives ``grid`` and the text graph ``tokens``.

``int8`` beside the image's ``file`` names the same graph with convolutions in int8, for the precision of that name
(``scripts/quantise_builtin.py``): about 2.5 times as fast. Its vectors hardly differ, so an index may hold both kinds,
and the digest is the same. ``multilingual`` names what reads queries in other languages than English: ``{"file": …,
"pieces": …, "guess": …, "max_tokens": 96}``, see `mmsearch.models.encoders.multilingual`; ``names`` a file of what
queries know of named things, see `mmsearch.models.encoders.name_directions`. What else ``encoder.json`` holds is for
training.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError, VectorError
from mmsearch.core.system import session_settings
from mmsearch.models.encoders.base import Encoder, EncoderFamily, EncoderOptions, FloatArray
from mmsearch.models.encoders.builtin_description import BuiltinDescription
from mmsearch.models.encoders.language_guess import is_english
from mmsearch.models.encoders.machine_plan import machine
from mmsearch.models.encoders.multilingual import MultilingualTokens, means_something
from mmsearch.models.encoders.name_directions import NameDirections
from mmsearch.models.encoders.registry import BUILTIN, DIRECTORY_PREFIX

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from PIL.Image import Image
    from tokenizers import Tokenizer

_log = logging.getLogger(__name__)
SHIPPED_WEIGHTS = Path(__file__).parent / "builtin_weights"
TOKENS_PER_RUN = 2048
"""Padded tokens that one run of the text encoder gets at most: it bounds memory, whatever the texts are."""


class BuiltinEncoder(Encoder):
    """Runs the graphs of one folder. Each opens when it is first used, so a text query never waits for
    the image encoder. A row does not depend on the other rows of its batch.

    Raises:
        ModelMissing: the folder is not complete.
        EncoderError: its description or a graph cannot be used, or a device other than the CPU is asked for.
    """

    directory: Path

    def __init__(self, directory: Path = SHIPPED_WEIGHTS, options: EncoderOptions | None = None) -> None:
        self._options = options or EncoderOptions()
        if self._options.device not in ("auto", "cpu"):
            raise EncoderError(
                f"the built-in encoder runs on the CPU only, device {self._options.device!r} was asked for; "
                "use device 'auto', or an open_clip model for a GPU"
            )
        self.directory = directory
        self._description = BuiltinDescription.read(directory)
        self._opening = threading.Lock()
        self._sessions: dict[str, InferenceSession] = {}
        self._tokenizers: dict[int | None, Tokenizer] = {}
        self._image_file, self.has_int8 = self._description.image_file, self._description.int8_file is not None
        if self._description.int8_file is not None and self._options.precision in ("int8", "auto"):
            if "vnni" in machine(1):
                self._image_file = self._description.int8_file
            else:  # two products would be added in 16 bits, where these weights overflow
                _log.info("%s stays in float32: this processor has no VNNI, without which int8 goes wrong", directory)
        foreign = self._description.multilingual
        self._pieces = None if foreign is None else MultilingualTokens(directory, foreign)
        self.spec = self._description.spec
        self.input_size = round(self._description.framing.size / self._description.framing.zoom)
        self.batch_size = self._options.batch_size or self._description.batch_size
        self.max_text_tokens = self._description.max_tokens

    @cached_property
    def _names(self) -> NameDirections | None:
        name = self._description.names_file
        return None if name is None else NameDirections.read(self.directory / name, self.spec.digest)

    @property
    def graph_files(self) -> tuple[str, str]:
        """The names of the image graph, as it runs, and the text graph in ``directory``."""
        return self._image_file, self._description.text_file

    def prepare_image(self, image: Image) -> npt.NDArray[np.uint8]:
        """A picture of any mode, upright, to (size, size, 3) uint8."""
        return self._description.framing.apply(image)

    def encode_prepared(self, inputs: npt.NDArray[np.generic]) -> FloatArray:
        """(n, size, size, 3) uint8 to (n, dim) rows of length 1.

        Raises:
            VectorError: ``inputs`` has another shape or type.
        """
        self._check_inputs(inputs)
        if len(inputs) == 0:
            return np.zeros((0, self.spec.dim), dtype=np.float32)
        return self._vectors(self._image_file, {"pixels": inputs})

    def image_grid(self, inputs: npt.NDArray[np.generic]) -> FloatArray:
        """(n, size, size, 3) uint8, n of 1 or more, to the last features that still have a place, (n, 352, h, w).

        Raises:
            VectorError: ``inputs`` has another shape or type.
            EncoderError: these weights do not give a grid.
        """
        self._check_inputs(inputs)
        return self._run(self._image_file, ["grid"], {"pixels": inputs})[0]

    def vectors_and_grids(self, inputs: npt.NDArray[np.generic]) -> tuple[FloatArray, FloatArray]:
        """``encode_prepared`` and ``image_grid`` of the same pictures, for the price of one."""
        self._check_inputs(inputs)
        vectors, grids = self._run(self._image_file, ["vector", "grid"], {"pixels": inputs})
        return vectors, grids

    def vectors_and_logits(self, inputs: npt.NDArray[np.generic]) -> tuple[FloatArray, FloatArray]:
        """``encode_prepared`` of n pictures, 1 or more, and the logits of their classes (n, classes), for one price."""
        self._check_inputs(inputs)
        vectors, logits = self._run(self._image_file, ["vector", "logits"], {"pixels": inputs})
        return vectors, logits

    def text_tokens(self, text: str) -> FloatArray:
        """One text to its last tokens before they are pooled, (1, length, 384).

        Raises:
            EncoderError: these weights do not give tokens.
        """
        inputs = _padded([self._tokenize(text, self.max_text_tokens)])
        return self._run(self._description.text_file, ["tokens"], inputs)[0]

    def vectors_and_tokens(self, texts: Sequence[str]) -> tuple[FloatArray, list[FloatArray]]:
        """``encode_texts`` and the tokens of each text, (length, 384), of n texts."""
        ids = [self._tokenize(text, self.max_text_tokens) for text in texts]
        vectors = np.zeros((len(texts), self.spec.dim), dtype=np.float32)
        tokens: list[FloatArray] = [np.zeros((0, 0), dtype=np.float32)] * len(texts)
        for members in _similar_lengths([len(row) for row in ids]) if ids else ():
            inputs = _padded([ids[i] for i in members])
            vectors[members], found = self._run(self._description.text_file, ["vector", "tokens"], inputs)
            for row, values in zip(members, found, strict=True):
                tokens[row] = values[: len(ids[row])]
        return vectors, tokens

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """n texts to (n, dim) rows of length 1, in their order; a text beyond ``max_text_tokens`` is cut."""
        rows = np.zeros((len(texts), self.spec.dim), dtype=np.float32)
        if not len(texts):
            return rows
        tokens = [self._tokenize(text, self.max_text_tokens) for text in texts]
        for members in _similar_lengths([len(ids) for ids in tokens]):
            rows[members] = self._vectors(self._description.text_file, _padded([tokens[i] for i in members]))
        return rows

    def encode_queries(self, texts: Sequence[str], language: str | None = None) -> FloatArray:
        """As ``encode_texts``; what is not English, by ``language`` or its letters, the multilingual encoder reads.
        Names of common things know where pictures of these lie.
        """
        rows = self._read_queries(texts, language)
        return rows if self._names is None else self._names.added_to(rows)

    def _read_queries(self, texts: Sequence[str], language: str | None) -> FloatArray:
        foreign = [i for i, text in enumerate(texts) if not self.is_read_as_english(text, language)]
        if self._pieces is None or self._description.multilingual is None or not foreign:
            return self.encode_texts(texts)
        rows = np.zeros((len(texts), self.spec.dim), dtype=np.float32)
        english = np.setdiff1d(np.arange(len(texts)), foreign)
        rows[english] = self.encode_texts([texts[i] for i in english])
        tokens = self._pieces.encode([texts[i] for i in foreign])
        for members in _similar_lengths([len(ids) for ids in tokens]):
            found = self._vectors(self._description.multilingual.graph_file, _padded([tokens[i] for i in members]))
            rows[[foreign[i] for i in members]] = found
        return rows

    def reads_query(self, text: str, language: str | None = None) -> bool:
        """See :meth:`Encoder.reads_query`."""
        if self._pieces is not None and not self.is_read_as_english(text, language):
            return self._pieces.reads(text)
        words: list[list[str | None]] = []
        for token in self._tokenizer(self.max_text_tokens).encode(_valid(text), add_special_tokens=False).tokens:
            if not token.startswith("##") or not words:
                words.append([])
            words[-1].append(None if token == "[UNK]" else token.removeprefix("##"))
        return any(map(means_something, words))

    def telling_words(self, text: str, language: str | None = None) -> float | None:
        """See :meth:`Encoder.telling_words`."""
        if self._pieces is None or self.is_read_as_english(text, language):
            return None
        return self._pieces.telling_words(text)

    def is_read_as_english(self, text: str, language: str | None = None) -> bool:
        """Whether a query is read by the English text encoder, because of its ``language`` or of its letters."""
        foreign = self._description.multilingual
        if foreign is None:
            return True
        return language == "en" if language else is_english(text, self.directory / foreign.guess_file)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text takes uncut, start, end and the model's prompt included."""
        return len(self._tokenize(text, None))

    def _tokenize(self, text: str, limit: int | None) -> list[int]:
        """Token ids of a text in the model's prompt, start and end included, at most ``limit`` of them."""
        prompted = self._description.prompt.replace("{}", text)
        ids: list[int] = self._tokenizer(limit).encode(_valid(prompted)).ids
        return ids

    def _check_inputs(self, inputs: npt.NDArray[np.generic]) -> None:
        size = self._description.framing.size
        if inputs.shape[1:] != (size, size, 3) or inputs.dtype != np.uint8:
            raise VectorError(
                f"the image encoder takes (n, {size}, {size}, 3) uint8 as prepare_image makes them, "
                f"found {inputs.shape} {inputs.dtype}"
            )

    def _run(self, graph: str, outputs: list[str], inputs: dict[str, npt.NDArray[Any]]) -> list[FloatArray]:
        session = self._session(graph)
        try:
            values: list[FloatArray] = session.run(outputs, inputs)
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise EncoderError(f"encoder {self.spec.name} failed to run: {error}") from error
        return values

    def _vectors(self, graph: str, inputs: dict[str, npt.NDArray[Any]]) -> FloatArray:
        vectors = self._run(graph, ["vector"], inputs)[0]
        if vectors.shape[1:] != (self.spec.dim,):
            raise EncoderError(
                f"encoder {self.spec.name} gave vectors of shape {vectors.shape}, its encoder.json says "
                f"(n, {self.spec.dim}); export it again"
            )
        return vectors

    def _tokenizer(self, limit: int | None) -> Tokenizer:
        """The tokenizer that cuts at ``limit`` tokens; it is never changed once another thread can see it."""
        from tokenizers import Tokenizer

        with self._opening:
            if limit not in self._tokenizers:
                path = self.directory / self._description.tokenizer_file
                try:
                    tokenizer = Tokenizer.from_file(str(path))
                except Exception as error:  # tokenizers raises bare Exception
                    raise EncoderError(f"{path} cannot be read as a tokenizer: {error}") from error
                tokenizer.no_padding()
                tokenizer.no_truncation()
                if limit is not None:
                    tokenizer.enable_truncation(limit)
                self._tokenizers[limit] = tokenizer
            return self._tokenizers[limit]

    def _session(self, graph: str) -> InferenceSession:
        with self._opening:
            if graph not in self._sessions:
                self._sessions[graph] = self._open(graph)
            return self._sessions[graph]

    def _open(self, graph: str) -> InferenceSession:
        # The fusions of the higher levels open later and run no faster on a text encoder.
        is_text = graph != self._image_file
        widen = not (is_text and self._options.few_texts)
        threads = self._options.threads or (1 if is_text and self._options.single_texts else None)
        return open_session(self.directory / graph, threads, fuse=not is_text, widen=widen)


class BuiltinFamily(EncoderFamily):
    """``builtin``, and the directories that training makes."""

    def open(self, name: str, options: EncoderOptions, *, texts_only: bool = False) -> Encoder:
        """See :meth:`EncoderFamily.open`."""
        directory = SHIPPED_WEIGHTS if name == BUILTIN else Path(name.removeprefix(DIRECTORY_PREFIX))
        return BuiltinEncoder(directory, options)


FAMILY = BuiltinFamily()


def open_session(path: Path, threads: int | None, *, fuse: bool = True, widen: bool = True) -> InferenceSession:
    """A graph on the CPU, with ``threads`` of its own (``None``: all cores that this process may use).

    ``widen``: weights stored in 8 bits become float32 once, and not at every run.

    Raises:
        EncoderError: onnxruntime cannot open it.
    """
    import onnxruntime

    settings = session_settings(threads)
    if not fuse:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        return onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"],
            disabled_optimizers=None if widen else ["ConstantFolding"],
        )  # fmt: skip
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise EncoderError(f"{path} cannot be opened: {error}") from error


def digest_of_weights(directory: Path) -> str:
    """Hex SHA-256 over the files that define the vectors, in the order in which encoder.json names them."""
    digest = hashlib.sha256()
    for name in BuiltinDescription.read(directory).digest_files:
        digest.update((directory / name).read_bytes())
    return digest.hexdigest()


def _valid(text: str) -> str:
    """Bytes that a file name or argument could not decode are lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _padded(tokens: Sequence[Sequence[int]]) -> dict[str, npt.NDArray[Any]]:
    """Token ids of texts as the inputs of the text graph."""
    input_ids = np.zeros((len(tokens), max(len(ids) for ids in tokens)), dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, ids in enumerate(tokens):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def _similar_lengths(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers in groups of similar length, so that little is padded; see ``TOKENS_PER_RUN``."""
    group: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and lengths[row] * (len(group) + 1) > TOKENS_PER_RUN:
            yield group
            group = []
        group.append(row)
    yield group
