"""The forms in which pairs come: a table, a folder with sidecar files, a webdataset, an index with captions.

    table       TSV, CSV or JSON Lines: a column (field) with the image's path and one with its caption
    sidecars    a folder: ``photo.jpg`` beside ``photo.txt`` (a caption a line) or ``photo.json``
    webdataset  tar files: ``000017.jpg`` beside ``000017.txt`` or ``000017.json``
    index       the directory of an index: the captions beside its photos, and those that photos carry in themselves

Rows that cannot be used are listed with their reason and never end the reading.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.core.errors import UsageError
from mmsearch.core.types import Skip
from mmsearch.media.formats import IMAGE, RAW, suffixes_of
from mmsearch.media.text.caption_table import CAPTION_COLUMNS
from mmsearch.models.encoders.base import FloatArray
from mmsearch.store.registry import family_of, open_store
from mmsearch.training.pairs import ImageSource, Pairs, merge

IMAGE_COLUMNS = ("image", "filepath", "file_path", "image_path", "path", "file", "file_name", "filename", "img")
"""The first of these names that a table has, in any case, is its image column."""
IMAGE_SUFFIXES = suffixes_of(IMAGE) - suffixes_of(IMAGE, reader=RAW)
_TABLES = {".tsv", ".csv", ".txt", ".jsonl", ".ndjson"}

_Found = ImageSource | str
"""An image, or the reason why there is none."""


def read_pairs(source: Path, images: Path | None = None) -> Pairs:
    """Reads ``source`` by what it is. ``images`` is the folder that a table's relative paths start from.

    Without it, they start from the table's own folder or from a folder ``images`` beside it.

    Raises:
        UsageError: ``source`` does not exist, is of no known form, or holds no usable pair at all.
    """
    if not source.exists():
        raise UsageError(f"there is no {source}: check the spelling")
    if source.is_dir() and family_of(source).exists(str(source)):
        pairs = _from_index(source)
    elif source.is_dir():
        tars = sorted(source.glob("*.tar"))
        pairs = _from_tars(tars) if tars else _from_sidecars(source)
    elif source.suffix.lower() == ".tar":
        pairs = _from_tars([source])
    elif source.suffix.lower() in _TABLES:
        pairs = _from_table(source, images)
    else:
        raise UsageError(
            f"{source} is no table (.tsv, .csv, .jsonl), folder, index or webdataset (.tar): pairs come as one of these"
        )
    if not len(pairs):
        first = f"; the first of {len(pairs.refused)}: {pairs.refused[0].reason}" if pairs.refused else ""
        raise UsageError(f"{source} holds no usable pair of image and caption{first}")
    return pairs


def _from_table(source: Path, images: Path | None) -> Pairs:
    folders = [images] if images else [source.parent, source.parent / "images"]
    rows, refused = [], []
    for line, fields in _table_rows(source):
        place = f"{source}:{line}"
        if isinstance(fields, str):
            refused.append(Skip(place, fields))
            continue
        name, captions = fields
        image = _locate(name, folders)
        if isinstance(image, str):
            refused.append(Skip(place, image))
        elif not captions:
            refused.append(Skip(place, "the caption is empty"))
        else:
            rows += [(image, caption) for caption in captions]
    return merge(rows, refused)


def _table_rows(source: Path) -> Iterator[tuple[int, tuple[str, list[str]] | str]]:
    """(line number, (image, captions) or the reason why the row cannot be used)."""
    with source.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        if source.suffix.lower() in {".jsonl", ".ndjson"}:
            yield from ((n, _json_row(line)) for n, line in enumerate(file, 1) if line.strip())
            return
        lines = enumerate(file, 1)
        delimiter, header = _header(next(lines, (1, ""))[1], source)
        columns = _columns(header, source)
        for number, line in lines:
            if line.strip():
                yield number, _split_row(line, delimiter, columns, len(header))


def _header(line: str, source: Path) -> tuple[str, list[str]]:
    delimiter = "," if source.suffix.lower() == ".csv" and "\t" not in line else "\t"
    return delimiter, [name.strip().lower() for name in _cells(line, delimiter)]


def _columns(header: Sequence[str], source: Path) -> tuple[int, int]:
    found = []
    for kind, names in (("image", IMAGE_COLUMNS), ("caption", CAPTION_COLUMNS)):
        column = next((header.index(name) for name in names if name in header), None)
        if column is None:
            raise UsageError(
                f"{source} has no {kind} column: its first line has {', '.join(header[:12]) or 'nothing'}; "
                f"expected a header with one of {', '.join(names)}"
            )
        found.append(column)
    return found[0], found[1]


def _split_row(line: str, delimiter: str, columns: tuple[int, int], width: int) -> tuple[str, list[str]] | str:
    cells = _cells(line, delimiter)
    if len(cells) != width:
        return f"{len(cells)} columns, the header has {width}"
    return cells[columns[0]].strip(), _clean([cells[columns[1]]])


def _cells(line: str, delimiter: str) -> list[str]:
    # In a TSV a quote is a quote: captions hold them, and must not swallow the lines after.
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter, quoting=quoting), [])
    except csv.Error:
        return []


def _json_row(line: str) -> tuple[str, list[str]] | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if not isinstance(row, dict):
        return f"not a JSON object but {type(row).__name__}"
    fields = {str(name).lower(): value for name, value in row.items()}
    image = next((fields[name] for name in IMAGE_COLUMNS if isinstance(fields.get(name), str)), None)
    if image is None:
        return f"no image: expected one of the fields {', '.join(IMAGE_COLUMNS)}"
    return image, _captions_of(fields)


def _captions_of(fields: dict[str, Any]) -> list[str]:
    """The captions of a JSON object: a string, or a list of strings for several."""
    value = next((fields[name] for name in CAPTION_COLUMNS if fields.get(name)), None)
    values = value if isinstance(value, list) else [value]
    return _clean(text for text in values if isinstance(text, str))


def _clean(texts: Iterable[str]) -> list[str]:
    cleaned = (" ".join(text.encode("utf-8", "replace").decode("utf-8").split()) for text in texts)
    return [text for text in cleaned if text]


def _locate(name: str, folders: Sequence[Path]) -> _Found:
    if not name:
        return "no image is named"
    try:
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        return f"the image's name cannot be used: {error}"
    return ImageSource(path) if path else f"there is no image {name} in {' or '.join(map(str, folders))}"


def _from_sidecars(folder: Path) -> Pairs:
    rows, refused = [], []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            continue
        sidecar = next((p for end in (".txt", ".json") if (p := path.with_suffix(end)).is_file()), None)
        if sidecar is None:
            refused.append(Skip(str(path), f"no caption: expected {path.stem}.txt or {path.stem}.json beside it"))
            continue
        captions = _sidecar_captions(sidecar.suffix, sidecar.read_bytes())
        if isinstance(captions, str):
            refused.append(Skip(str(sidecar), captions))
        else:
            rows += [(ImageSource(path), caption) for caption in captions]
    return merge(rows, refused)


def _sidecar_captions(suffix: str, content: bytes) -> list[str] | str:
    text = content.decode("utf-8-sig", "replace")
    if suffix == ".txt":
        return _clean(text.splitlines()) or "the caption is empty"
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if not isinstance(fields, dict):
        return f"not a JSON object but {type(fields).__name__}"
    captions = _captions_of({str(name).lower(): value for name, value in fields.items()})
    return captions or f"no caption: expected one of the fields {', '.join(CAPTION_COLUMNS)}"


def _from_tars(shards: Sequence[Path]) -> Pairs:
    rows, refused = [], []
    for shard in shards:
        try:
            samples = _samples(shard)
        except (tarfile.TarError, OSError, EOFError) as error:
            refused.append(Skip(str(shard), f"not a readable tar file: {error}"))
            continue
        for key, (image, captions) in samples.items():
            if image is None:
                refused.append(Skip(f"{shard}:{key}", "no image beside the caption"))
            elif isinstance(captions, str):
                refused.append(Skip(f"{shard}:{key}", captions))
            else:
                rows += [(image, caption) for caption in captions]
    return merge(rows, refused)


def _samples(shard: Path) -> dict[str, tuple[ImageSource | None, list[str] | str]]:
    """By key (the name up to the first dot of its last part, as webdataset has it): image, captions or reason."""
    samples: dict[str, tuple[ImageSource | None, list[str] | str]] = {}
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            key, suffix = f"{folder}/{stem}".lstrip("/"), "." + ending.lower()
            if not member.isfile() or suffix not in IMAGE_SUFFIXES | {".txt", ".caption", ".json"}:
                continue
            image, captions = samples.get(key, (None, "no caption beside the image"))
            if suffix in IMAGE_SUFFIXES:
                image = ImageSource(shard, member.offset_data, member.size, member.name)
            elif isinstance(captions, str) or suffix != ".json":  # a text file says it better than metadata
                content = tar.extractfile(member)
                assert content is not None
                captions = _sidecar_captions(".json" if suffix == ".json" else ".txt", content.read())
            samples[key] = (image, captions)
    return samples


def _from_index(directory: Path) -> Pairs:
    rows, refused = [], []
    with contextlib.closing(open_store(directory)) as store:
        for document in sorted(store.scan(), key=lambda document: document.path):
            texts = [text for text in (document.caption, document.description) if text]
            if document.modality != "image" or not texts:
                continue
            if document.path == document.name:  # where an imported one lies, nobody knows
                refused.append(Skip(document.path, "only its vector was imported, not the image"))
            elif not Path(document.path).is_file():
                inside = any(".tar" in part.lower() for part in document.name.split("/")[:-1])
                reason = "it lies in an archive: train on the archive itself" if inside else "it is gone since indexing"
                refused.append(Skip(document.path, reason))
            else:
                rows += [(ImageSource(Path(document.path)), caption) for caption in _clean(texts)]
    return merge(rows, refused)


def vectors_of_index(address: str | Path, pairs: Pairs) -> FloatArray:
    """What an index holds for the images of pairs, (images, dim) float32 of length 1; zeros for those it lacks.

    Raises:
        IndexMissing, IndexDamaged: there is no index, or it cannot be read.
        UsageError: it holds none of the images.
    """
    with contextlib.closing(open_store(address)) as store:
        segments: dict[str, int] = {}
        for block in store.blocks():
            for segment in store.fetch(block.ids.tolist()):
                if segment.modality == "image" and segment.ordinal == 0:
                    segments[os.path.realpath(segment.path)] = segment.id
        vectors = np.zeros((len(pairs), store.spec.dim), dtype=np.float32)
        known = [
            (place, id_) for place, image in enumerate(pairs.images) if (id_ := segments.get(_key(image))) is not None
        ]
        if not known:
            raise UsageError(
                f"the index {address} holds none of the {len(pairs)} images to train on: index them first, or mine "
                "hard negatives without it (--neighbours)"
            )
        places, ids = zip(*known, strict=True)
        vectors[list(places)] = store.vectors(np.array(ids, dtype=np.int64))
        return vectors


def _key(image: ImageSource) -> str:
    """As the index names it: samples of archives lie below their archive."""
    path = os.path.realpath(image.path)
    return f"{path}/{image.member}" if image.member else path
