"""What programs give to the methods of `Index`: paths, queries, pictures and options, or an error that says what is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mmsearch.core.errors import UsageError
from mmsearch.core.home import expanded
from mmsearch.core.options import Options

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from mmsearch.query import Question

    Picture = str | os.PathLike[str] | Image | npt.NDArray[np.uint8] | bytes

PathLike = str | os.PathLike[str]
AnyOptions = TypeVar("AnyOptions", bound=Options)


def options_given(kind: type[AnyOptions], given: AnyOptions | None) -> AnyOptions:
    """Options, or those by default."""
    if given is not None and not isinstance(given, kind):
        raise UsageError(f"options must be {kind.__name__}, got {type(given).__name__}")
    return kind() if given is None else given


def paths_given(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """Files or folders, one or several."""
    single = isinstance(paths, (str, os.PathLike))
    every = [paths] if single else listed_given(paths, "give files or folders")
    given = [path_given(path) for path in every]
    if not given:
        raise UsageError("no files or folders given")
    return given


def path_given(given: Any) -> Path:
    """A path, in which ``~`` is the home."""
    if not isinstance(given, (str, os.PathLike)) or "\0" in str(given):
        raise UsageError(f"{given!r} is no path")
    try:
        os.fsencode(given)
    except UnicodeEncodeError as error:
        raise UsageError(f"{given!r} is no path: {error.reason}") from error
    from mmsearch.sources.remote import located

    return expanded(located(given))


def queries_given(queries: Sequence[str | Question], *, raw: bool) -> list[Question]:
    """The queries of `Index.search_many`."""
    from mmsearch.query import Question

    if isinstance(queries, str):
        raise UsageError("search_many takes a list of queries: for one there is search")
    given = listed_given(queries, "queries are texts, or mmsearch.Question")
    parsed = [query_given(query, None, raw=raw) if isinstance(query, str) else query for query in given]
    for query in parsed:
        if not isinstance(query, Question):
            raise UsageError(f"queries are texts, or mmsearch.Question, got {type(query).__name__}")
    return parsed


def listed_given(given: Any, expected: str) -> list[Any]:
    """A list; ``expected`` says what of."""
    try:
        return [] if given is None else list(given)
    except TypeError:
        raise UsageError(f"{expected}, got {given!r}") from None


def picture_given(given: Any) -> Any:
    """A path, or an image of PIL, which is not imported for the question whether it is one."""
    if isinstance(given, (str, os.PathLike)):
        path_given(given)
        return Path(given)
    if isinstance(given, (bytes, bytearray, memoryview)):
        from mmsearch.query.question import opened_picture

        return opened_picture(bytes(given))
    if isinstance(given, np.ndarray):
        from PIL import Image

        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3 or not given.size:
            raise UsageError(
                f"an image as an array is uint8 of shape (height, width, 3), RGB; got {given.dtype} {given.shape}"
            )
        return Image.fromarray(given)
    if not hasattr(given, "convert"):
        raise UsageError(
            "an image is a path, an image of PIL, an array of uint8 (height, width, 3) or the bytes of a picture file, "
            f"got {type(given).__name__}"
        )
    return given


def query_given(
    text: str | Sequence[str] | None,
    image: Picture | Sequence[Picture] | None,
    *,
    raw: bool,
    text_weight: float | Sequence[float] = 1.0,
    image_weight: float | Sequence[float] = 1.0,
) -> Question:
    """What `Index.search` is given, as one question."""
    from mmsearch.query import Question

    texts: list[str] = [text] if isinstance(text, str) else listed_given(text, "a text is a string, or several")
    if any(not isinstance(each, str) for each in texts):
        raise UsageError(f"a text is a string, or several, got {texts!r}")
    pictures = list(image) if isinstance(image, (list, tuple)) else [] if image is None else [image]
    for weight in (text_weight, image_weight):
        if any(not isinstance(each, (int, float)) for each in (weight if isinstance(weight, Sequence) else [weight])):
            raise UsageError(f"a weight is a number, or one for each, got {weight!r}")
    sources = [picture_given(picture) for picture in pictures]
    return Question.of(texts, sources, text_weight=text_weight, image_weight=image_weight, raw=raw)
