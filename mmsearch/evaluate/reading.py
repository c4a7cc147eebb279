"""Files to questions and their right answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmsearch.core.errors import UsageError

SetKind = Literal["captions", "labels", "qrels"]


@dataclass(frozen=True)
class JudgedQuestion:
    """A question and its right answers: names of files (or ends of their paths) with grades above 0."""

    id: str
    text: str
    relevant: Mapping[str, float]


@dataclass(frozen=True)
class EvaluationSet:
    """Questions of one kind. Captions can also be asked the other way round, image to text."""

    kind: SetKind
    questions: tuple[JudgedQuestion, ...]


def read_evaluation_set(path: Path, qrels: Path | None = None, template: str = "{}") -> EvaluationSet:
    """Reads what kind of file it is.

    - ``image<TAB>caption`` lines, a first line ``image<TAB>caption`` is a header; or JSON Lines with ``image`` and
      ``caption`` or ``captions``: each caption a question, its image the answer.
    - JSON Lines with ``image`` and ``objects``: each object name a question, ``template`` around it (such as
      ``a photo of a {}.``), the images that have it the answers.
    - ``id<TAB>text`` lines and a TREC qrels file (``id 0 document grade``).

    Raises:
        UsageError: a file cannot be read, or holds none of these; with the line.
    """
    if template.count("{}") != 1:
        raise UsageError(f"the template needs {{}} exactly once; found {template!r}")
    if qrels is not None:
        return EvaluationSet("qrels", tuple(_judged(path, qrels)))
    rows = list(_rows(path))
    if any("objects" in row for _, row in rows):
        return EvaluationSet("labels", tuple(_labelled(path, rows, template)))
    return EvaluationSet("captions", tuple(_captioned(path, rows)))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path):
        if line.lstrip().startswith("{"):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UsageError(f"{path}, line {number}: no JSON ({error})") from error
            if not isinstance(row.get("image"), str):
                raise UsageError(f'{path}, line {number}: "image" is missing; found {sorted(row)}')
            yield number, row
            continue
        image, tab, caption = line.partition("\t")
        if not tab or not caption.strip():
            raise UsageError(f"{path}, line {number}: expected image<TAB>caption or a JSON object; found {line[:60]!r}")
        if number == 1 and caption.strip().lower() in ("caption", "captions", "text"):
            continue
        yield number, {"image": re.sub(r"#\d+$", "", image), "caption": caption}


def _captioned(path: Path, rows: list[tuple[int, dict[str, Any]]]) -> Iterator[JudgedQuestion]:
    for number, row in rows:
        captions = row.get("captions", row.get("caption"))
        captions = [captions] if isinstance(captions, str) else captions
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            raise UsageError(f'{path}, line {number}: "caption", "captions" or "objects" is missing')
        for place, caption in enumerate(captions):
            if caption.strip():
                yield JudgedQuestion(f"{number}.{place}", caption.strip(), {row["image"]: 1.0})


def _labelled(path: Path, rows: list[tuple[int, dict[str, Any]]], template: str) -> Iterator[JudgedQuestion]:
    images: dict[str, dict[str, float]] = {}
    for number, row in rows:
        objects = row.get("objects")
        if not isinstance(objects, list) or not all(isinstance(name, str) for name in objects):
            raise UsageError(f'{path}, line {number}: "objects" must be a list of names')
        for name in objects:
            images.setdefault(name, {})[row["image"]] = 1.0
    for name in sorted(images):
        yield JudgedQuestion(name, template.replace("{}", name), images[name])


def _judged(queries: Path, qrels: Path) -> Iterator[JudgedQuestion]:
    texts: dict[str, str] = {}
    for number, line in _lines(queries):
        key, tab, text = line.partition("\t")
        if not tab or not text.strip():
            raise UsageError(f"{queries}, line {number}: expected id<TAB>text; found {line[:60]!r}")
        texts[key.strip()] = text.strip()
    grades: dict[str, dict[str, float]] = {}
    for number, line in _lines(qrels):
        parts = line.split(None, 2)
        try:
            document, grade = parts[2].rsplit(None, 1)
            grades.setdefault(parts[0], {})[document] = float(grade)
        except (IndexError, ValueError) as error:
            raise UsageError(f"{qrels}, line {number}: expected id 0 document grade; found {line[:60]!r}") from error
    for key, text in texts.items():
        yield JudgedQuestion(key, text, {name: grade for name, grade in grades.get(key, {}).items() if grade > 0})


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a text file: {error}") from error
    found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise UsageError(f"{path} is empty")
    yield from found
