"""Agreement with graded human judgements of how well captions describe images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mmsearch.core.errors import UsageError
from mmsearch.evaluate.matching import Gallery, Names
from mmsearch.evaluate.metrics import kendall_tau
from mmsearch.models.encoders.base import Encoder
from mmsearch.store.base import Store

_NUMBERED = re.compile(r"\S+#\d+")


def agreement(store: Store, encoder: Encoder, path: Path, captions_file: Path | None = None) -> dict[str, float]:
    """Kendall's tau of cosines and grades, from ``image<TAB>caption<TAB>grade[<TAB>grade…]`` lines.

    Several grades of one pair count one by one, as in CLIPScore's Flickr8k-Expert table (Hessel et al. 2021, tau-c
    times 100). Pairs whose image is not in the index are left out and counted.

    With ``captions_file`` (``image#number<TAB>caption`` lines, as Flickr8k.token.txt has them), the second column of a
    judgement may also be such an ``image#number``, as ExpertAnnotations.txt of Flickr8k has it.

    Raises:
        UsageError: a file cannot be read, or no pair of it is in the index.
    """
    known = {} if captions_file is None else _numbered(captions_file)
    names = Names(gallery := Gallery.of(store))
    pairs: list[tuple[int, str, list[float]]] = []
    left_out = 0
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        image, *rest = line.split("\t")
        try:
            caption, grades = rest[0], [float(grade) for grade in rest[1:]]
        except (IndexError, ValueError) as error:
            if number == 1:
                continue  # a header
            raise UsageError(
                f"{path}, line {number}: expected image<TAB>caption<TAB>grade; found {line[:60]!r}"
            ) from error
        if _NUMBERED.fullmatch(caption):
            if captions_file is None:
                raise UsageError(
                    f"{path}, line {number}: {caption} names a caption by its number; name the file of captions too"
                )
            if caption not in known:
                left_out += 1
                continue
            caption = known[caption]
        place = names.place(image)
        if place is None or not grades:
            left_out += 1
            continue
        pairs.append((place, caption, grades))
    if not pairs:
        raise UsageError(f"no judged image of {path} is in the index")
    captions = list(dict.fromkeys(caption for _, caption, _ in pairs))
    texts = dict(zip(captions, encoder.encode_texts(captions), strict=True))
    images = store.vectors(gallery.segments[gallery.starts])
    scores = [float(images[place] @ texts[caption]) for place, caption, grades in pairs for _ in grades]
    given = [grade for _, _, grades in pairs for grade in grades]
    tau_b, tau_c = (kendall_tau(np.array(scores), np.array(given), variant) for variant in ("b", "c"))
    return {"tau_b": tau_b, "tau_c": tau_c, "judgements": float(len(given)), "left_out": float(left_out)}


def _numbered(path: Path) -> dict[str, str]:
    """``image#number`` → caption."""
    pairs = (line.partition("\t")[::2] for line in _text(path).splitlines())
    found = {key.strip(): caption.strip() for key, caption in pairs if _NUMBERED.fullmatch(key.strip())}
    if not found:
        raise UsageError(f"{path} has no lines image#number<TAB>caption, which the judgements refer to")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a text file: {error}") from error
