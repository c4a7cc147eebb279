"""What is asked, and its vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import MediaError, UsageError
from mmsearch.core.modalities import has_pictures, spec_of
from mmsearch.core.types import Modality
from mmsearch.filters import Where
from mmsearch.filters.tree import modalities_named
from mmsearch.models.encoders.base import Encoder, FloatArray
from mmsearch.query.language import Spelled, parse_query

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = Any
"""An upright PIL image, or the path of an image file or of a video, of which several frames count together."""
FRAMES = 8
"""Of a video as a question."""


@dataclass(frozen=True)
class Question:
    """What is looked for: what resembles ``texts`` and ``images``, by weight, with ``exact`` phrases in its words,
    without what is ``excluded``, and only where all ``filters`` say yes.

    ``weights``: one for each text, then one for each image; empty means 1 for all. A question without texts and
    images lists what the rest allows, newest first.
    """

    texts: tuple[str, ...] = ()
    images: tuple[Picture, ...] = ()
    weights: tuple[float, ...] = ()
    exact: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    filters: tuple[Where, ...] = ()
    spelled: tuple[Spelled, ...] = field(default=(), compare=False, repr=False)
    """The filters that were written, as they were."""

    def __post_init__(self) -> None:
        count = len(self.texts) + len(self.images)
        if self.weights and (len(self.weights) != count or not all(0 < weight < 1e6 for weight in self.weights)):
            raise UsageError(f"{count} texts and images need {count} positive weights, got {list(self.weights)}")

    @classmethod
    def of(
        cls,
        texts: Iterable[str] = (),
        images: Iterable[Picture] = (),
        *,
        text_weight: float | Sequence[float] = 1.0,
        image_weight: float | Sequence[float] = 1.0,
        raw: bool = False,
    ) -> Question:
        """Texts in the query language (``raw``: taken literally) and images, as one question.

        A weight is one number for all texts (images), or one for each; a text of filters alone has none.

        Raises:
            UsageError: there is nothing to look for; `QueryError` where a text breaks the language.
        """
        given, pictures = list(texts), list(images)
        if not given and not pictures:
            raise UsageError("give either a text or an image to search for")
        if any(not text.strip() for text in given):
            raise UsageError("the query is empty: say what to search for")
        plain = cls() if raw else cls._parsed(given)
        positives = tuple(given) if raw else plain.texts
        weights = _each("text", text_weight, len(positives)) + _each("image", image_weight, len(pictures))
        return replace(plain, texts=positives, images=tuple(pictures), weights=weights)

    @classmethod
    def _parsed(cls, texts: Sequence[str]) -> Question:
        parsed = [parse_query(text) for text in texts]
        spoken = [" ".join(filter(None, (one.text, *one.exact))) for one in parsed]
        return cls(
            texts=tuple(text for text in spoken if text),
            exact=tuple(phrase for one in parsed for phrase in one.exact if phrase.strip()),
            excluded=tuple(phrase for one in parsed for phrase in one.excluded if phrase.strip()),
            filters=tuple(each for one in parsed for each in one.filters),
            spelled=tuple(each for one in parsed for each in one.spelled),
        )

    @property
    def modalities(self) -> tuple[Modality, ...] | None:
        """The kinds that the filters ask for by name, if they do."""
        return modalities_named(self.filters) or None


def _each(kind: str, weight: float | Sequence[float], count: int) -> tuple[float, ...]:
    """One weight for each of ``count`` things, from one for all or one each."""
    given = (weight,) if isinstance(weight, (int, float)) else tuple(weight)
    if len(given) not in (1, count):
        raise UsageError(f"{len(given)} weights for {count} {kind}s: give one for all, or one for each")
    return given * count if len(given) == 1 else given


@dataclass(frozen=True, eq=False)
class EncodedQuestion:
    """A question with its vectors, float32 rows of length 1: ``texts`` (t, dim), ``images`` (i, dim),
    ``excluded`` (e, dim). ``unread``: the places of texts that the encoder can read nothing of; they have no rows.
    ``telling_words``: how many words tell pictures apart, where the encoder knows (`Encoder.telling_words`).
    """

    question: Question
    texts: FloatArray
    images: FloatArray
    excluded: FloatArray
    unread: tuple[int, ...] = ()
    telling_words: float | None = None

    @property
    def is_listing(self) -> bool:
        """Whether there is nothing to compare with, only conditions."""
        return not len(self.texts) and not len(self.images) and not self.unread

    @property
    def is_words_only(self) -> bool:
        """Whether only names, captions and texts can tell: the encoder reads nothing of what is looked for."""
        return bool(self.unread) and not len(self.texts) and not len(self.images)

    @property
    def note(self) -> str | None:
        """What to say of texts that the encoder cannot read; ``None`` where it reads all."""
        if not self.unread:
            return None
        texts = ", ".join(repr(self.question.texts[place]) for place in self.unread)
        return (
            f"the model reads nothing in {texts}, so only names, captions and texts were searched for it: "
            "say it in other words, in English for instance"
        )

    def vector(self, text_share: float = 1.0) -> npt.NDArray[np.float32]:
        """The weighted sum, (dim,) of length 1; texts count ``text_share`` times their weight."""
        rows = np.concatenate([self.texts, self.images])
        if len(rows) == 1:
            only: npt.NDArray[np.float32] = rows[0]
            return only
        weights = np.ones(len(rows), dtype=np.float32)
        if self.question.weights:
            weights = np.delete(np.array(self.question.weights, dtype=np.float32), self.unread)
        weights[: len(self.texts)] *= text_share
        total = weights @ rows
        length = float(np.linalg.norm(total))
        if length < 1e-6:
            raise UsageError("the parts of the question cancel each other out: give them other weights")
        combined: npt.NDArray[np.float32] = (total / length).astype(np.float32)
        return combined


def encode_questions(
    encoder: Encoder | None,
    questions: Sequence[Question],
    known: dict[str, FloatArray] | None = None,
    language: str | None = None,
) -> list[EncodedQuestion]:
    """Questions with their vectors, from one call of each space; a text that comes several times is encoded once.

    Questions of conditions alone need no encoder. ``known``: rows of texts that are encoded already; others are added.
    ``language``: see `SearchOptions`.

    Raises:
        UsageError: an image cannot be read.
    """
    if encoder is None:
        none = np.zeros((0, 0), dtype=np.float32)
        return [EncodedQuestion(one, none, none, none) for one in questions]
    rows = {} if known is None else known
    texts = dict.fromkeys(text for one in questions for text in (*one.texts, *one.excluded) if text not in rows)
    rows.update(zip(texts, encoder.encode_queries(list(texts), language), strict=True))
    none = np.zeros((0, encoder.spec.dim), dtype=np.float32)
    frames = [_opened(image, encoder) for one in questions for image in one.images]
    image_rows = _means(encoder, frames)
    encoded, used = [], 0
    for one in questions:
        unread = tuple(place for place, text in enumerate(one.texts) if not encoder.reads_query(text, language))
        read = [rows[text] for place, text in enumerate(one.texts) if place not in unread]
        encoded.append(
            EncodedQuestion(
                one,
                np.stack(read) if read else none,
                image_rows[used : used + len(one.images)],
                np.stack([rows[text] for text in one.excluded]) if one.excluded else none,
                unread,
                encoder.telling_words(one.texts[0], language) if len(one.texts) == 1 else None,
            )
        )
        used += len(one.images)
    return encoded


def _means(encoder: Encoder, frames: Sequence[Sequence[Image]]) -> FloatArray:
    """One row of length 1 for each group of pictures, from one call of the encoder."""
    if not frames:
        return np.zeros((0, encoder.spec.dim), dtype=np.float32)
    rows = encoder.encode_images([picture for group in frames for picture in group])
    starts = np.cumsum([0, *(len(group) for group in frames[:-1])])
    sums = np.add.reduceat(rows, starts, axis=0)
    means: FloatArray = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
    return means


def _opened(image: Picture, encoder: Encoder) -> list[Image]:
    """The picture, in parts if it is very wide, or frames of a video, spread evenly over those that indexing takes."""
    from mmsearch.media import decoder_for
    from mmsearch.media.image.wide import parts

    if not isinstance(image, Path):
        return parts(image)
    decoder = decoder_for(image)
    if decoder is None or not spec_of(decoder.modality).is_sampled:
        return parts(load_picture(image, encoder.input_size))
    frames = [frame for _, frame in _frames(image, encoder.input_size)]
    return [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, FRAMES).astype(int))]


def opened_picture(data: bytes) -> Image:
    """The bytes of a picture file as a picture, upright, with the same care as a file.

    Raises:
        UsageError: it is none, or cannot be read.
    """
    from mmsearch.media.base import DecodeOptions
    from mmsearch.media.image.reader import ImageDecoder

    try:
        segments = ImageDecoder().decode(Path("picture"), DecodeOptions(cut_wide=False), data).segments
        picture = next((segment.image for segment in segments), None)
    except MediaError as error:
        raise UsageError(f"the picture cannot be read: {error}") from error
    if picture is None:
        raise UsageError("the picture cannot be read: there is none in it")
    return picture


def load_picture(path: Path, min_side: int = 10_000, at_s: float | None = None, page: int = 0) -> Image:
    """An image file, upright, as RGB; of a video the chosen frame that stands for the time ``at_s`` (the last one until
    then), else the first; of a file of several pages that of number ``page``, from 0.

    ``min_side``: pixels of the shorter side that suffice.

    Raises:
        UsageError: it is not there, or no image.
    """
    picture: Image | None = None
    for number, (start_s, each) in enumerate(_frames(path, min_side)):
        if start_s is not None and at_s is not None and picture is not None and start_s > at_s + 0.001:
            break
        picture = each
        if (at_s is None and number >= page) if start_s is None else (at_s is None or start_s >= at_s - 0.001):
            break
    assert picture is not None
    return picture


def _frames(path: Path, min_side: int) -> Iterator[tuple[float | None, Image]]:
    """The pictures of a file, at least one, with their times in a video."""
    from mmsearch.media import decoder_for
    from mmsearch.media.base import DecodeOptions
    from mmsearch.sources import read_sample

    decoder = decoder_for(path)
    if decoder is None or not has_pictures(decoder.modality):
        raise UsageError(f"{path} is no image that mmsearch can read")
    data = None if path.is_file() else read_sample(path)
    if data is None and not path.is_file():
        raise UsageError(f"there is no file {path}: check the spelling")
    count = 0
    try:
        for segment in decoder.decode(path, DecodeOptions(min_side=min_side, cut_wide=False), data).segments:
            if segment.image is not None:
                count += 1
                yield segment.start_s, segment.image
    except MediaError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not count:
        raise UsageError(f"{path} cannot be read: there is no picture in it")
