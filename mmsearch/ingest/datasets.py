"""Folders that clip-retrieval made: ``img_emb/img_emb_N.npy`` and ``text_emb/text_emb_N.npy``, either or both, beside
``metadata/metadata_N.parquet``. Row for row, they are of the same samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import UsageError, VectorError
from mmsearch.core.extras import install_hint
from mmsearch.core.types import Modality, Progress, Report
from mmsearch.ingest.embeddings import BATCH, EmbeddingWriter, Floats, Rows, check_vectors, dim_of, writing
from mmsearch.ingest.options import ImportOptions as ImportOptions
from mmsearch.pipeline.reading import Seconds
from mmsearch.store.base import Store
from mmsearch.store.local.directory import IndexDirectory

PATH_COLUMNS = ("url", "image_path", "path")
"""The first of these that a table has is where the pictures lie."""
_CAPTION_COLUMNS = ("caption", "text")
_SIZE_COLUMNS = (("original_width", "original_height"), ("width", "height"))


@dataclass(frozen=True)
class _Part:
    modality: Modality
    vectors: Path
    table: Path


def import_folder(
    index: IndexDirectory | Store,
    folder: Path,
    options: ImportOptions = ImportOptions(),
    progress: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """Takes the embeddings of a clip-retrieval folder into an index, without embedding anything.

    Pictures become images with their captions as words; captions that have vectors become texts under the same
    addresses, in a dataset of their own. An empty caption is left out.

    The index must be of the encoder that made them: dimension and length can be checked, which weights made them
    cannot. Repeating an import changes nothing; one that was killed goes on.

    Raises:
        UsageError: it is no such folder, or its parts do not fit together.
        VectorError: vectors of another dimension, or not of length 1.
    """
    parts = find_parts(folder, captions=options.captions)
    dim, name = dim_of(index), options.name or folder.resolve().name
    total = sum(len(_open(part, dim, options)) for part in parts)
    reports: list[Report] = []
    with writing(index) as writable:
        for modality, dataset in (("image", name), ("text", f"{name}/captions")):
            own = [part for part in parts if part.modality == modality]
            if own and not (reports and reports[-1].interrupted):
                done = sum(report.indexed + report.updated + report.unchanged for report in reports)
                writer = EmbeddingWriter(writable, dataset, _after(progress, done))
                reports.append(writer.add(_batches(own, dim, options), total))
    return _together(reports)


def _after(progress: Callable[[Progress], None], done: int) -> Callable[[Progress], None]:
    return lambda at: progress(replace(at, done=at.done + done))


def _together(reports: list[Report]) -> Report:
    counts = {
        name: sum(getattr(report, name) for report in reports)
        for name in ("indexed", "unchanged", "updated", "removed", "segments")
    }
    seconds = Seconds()
    for report in reports:
        seconds.include(report.seconds)
    return Report(**counts, interrupted=reports[-1].interrupted, seconds=dict(seconds))


def find_parts(folder: Path, *, captions: bool = True) -> list[_Part]:
    """Vectors and tables that belong together, by the number in their names; pictures first.

    Raises:
        UsageError: there are none, or one lacks its other half.
    """
    tables = _numbered(folder / "metadata", ".parquet")
    kinds: list[tuple[Modality, str]] = [("image", "img_emb"), ("text", "text_emb")]
    parts = []
    for modality, name in kinds if captions else kinds[:1]:
        vectors = _numbered(folder / name, ".npy")
        if vectors and (alone := sorted(vectors.keys() ^ tables.keys())):
            raise UsageError(
                f"part {alone[0]} of {folder} has vectors in {name} or a table, but not both: the folder is not "
                "complete"
            )
        parts += [_Part(modality, vectors[number], tables[number]) for number in sorted(vectors)]
    if not parts:
        raise UsageError(
            f"{folder} is no folder of clip-retrieval: expected img_emb/*.npy or text_emb/*.npy, and "
            "metadata/*.parquet, as `clip-retrieval inference` writes them"
        )
    return parts


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    found = ((re.search(r"(\d+)$", path.stem), path) for path in sorted(folder.glob(f"*{suffix}")))
    return {int(match[1]): path for match, path in found if match}


def _open(part: _Part, dim: int, options: ImportOptions) -> npt.NDArray[Any]:
    """The mapped vectors of a part, checked against its table before anything is written."""
    try:
        array: npt.NDArray[Any] = np.load(part.vectors, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{part.vectors} cannot be read as a numpy array: {error}") from error
    if array.ndim != 2 or array.shape[1] != dim:
        raise VectorError(
            f"{part.vectors} holds vectors of shape {array.shape}, the encoder of the index makes (n, {dim}): name the "
            "model that made them with --model"
            + (", or leave the captions out with --no-captions" if part.modality == "text" else "")
        )
    table = _table(part.table)
    if table.metadata.num_rows != len(array):
        raise UsageError(f"{part.vectors} has {len(array)} vectors, {part.table.name} {table.metadata.num_rows} rows")
    _columns(table.schema_arrow.names, part, options)
    return array


def _table(path: Path) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            f"reading parquet files takes pyarrow, which is not installed: {install_hint('datasets')}"
        ) from error
    try:
        return parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UsageError(f"{path} cannot be read as a parquet table: {error}") from error


def _columns(names: list[str], part: _Part, options: ImportOptions) -> dict[str, str]:
    """What of a row is taken from which column. Captions alone may have no address: then their place is one."""
    wanted = (options.path_column,) if options.path_column else PATH_COLUMNS
    place = next((name for name in wanted if name in names), None)
    caption = next((name for name in _CAPTION_COLUMNS if name in names), None)
    is_text = part.modality == "text"
    if is_text and caption is None:
        raise UsageError(
            f"{part.table} has no column {' or '.join(_CAPTION_COLUMNS)}, only {', '.join(names)}: the texts of "
            f"{part.vectors.parent.name} cannot be told; leave them out with --no-captions"
        )
    if place is None and (options.path_column or not is_text):
        raise UsageError(
            f"{part.table} has no column {' or '.join(wanted)}, only {', '.join(names)}: name the one that says where "
            "the pictures lie with --path-column"
        )
    columns = {} if place is None else {"path": place}
    if caption is not None:
        columns["text" if is_text else "caption"] = caption
    if is_text:
        return columns
    for width, height in _SIZE_COLUMNS:
        if "width" not in columns and {width, height} <= set(names):
            columns.update(width=width, height=height)
    return columns


def _batches(parts: list[_Part], dim: int, options: ImportOptions) -> Iterator[tuple[Floats, Rows]]:
    """One part is mapped at a time, so memory does not grow with their number."""
    for part in parts:
        array = _open(part, dim, options)
        table = _table(part.table)
        columns = _columns(table.schema_arrow.names, part, options)
        start = 0
        for batch in table.iter_batches(batch_size=BATCH, columns=sorted(set(columns.values()))):
            values = batch.to_pydict()
            named = [(name, values[column]) for name, column in columns.items()]
            rows = [_row(part, named, number, start) for number in range(batch.num_rows)]
            try:
                vectors = check_vectors(array[start : start + len(rows)], array.shape[1], normalize=options.normalize)
            except VectorError as error:
                raise VectorError(f"{part.vectors}, from row {start} on: {error}") from error
            start += len(rows)
            if part.modality == "text":
                told = [number for number, row in enumerate(rows) if (row["text"] or "").strip()]
                vectors, rows = vectors[told], [rows[number] for number in told]
            yield vectors, rows


def _row(part: _Part, columns: list[tuple[str, list[Any]]], number: int, start: int) -> dict[str, Any]:
    row: dict[str, Any] = {"modality": part.modality, "path": f"{part.table.name}/{start + number}"}
    for name, values in columns:
        value = values[number]
        row[name] = value if value is None or name in ("width", "height") else str(value)
    return row
