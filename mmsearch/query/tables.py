"""Hits as a table, for pandas and Arrow: a row a hit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mmsearch.core.errors import UsageError
from mmsearch.core.extras import install_hint
from mmsearch.core.types import Hit

if TYPE_CHECKING:
    import pandas
    import pyarrow

COLUMNS: dict[str, tuple[str, Callable[[Hit], Any]]] = {
    "rank": ("int64", lambda hit: hit.rank),
    "score": ("float64", lambda hit: hit.score),
    "relevance": ("float64", lambda hit: hit.relevance),
    "match": ("bool", lambda hit: hit.match),
    "path": ("string", lambda hit: hit.path),
    "modality": ("string", lambda hit: hit.modality),
    "segment": ("int64", lambda hit: hit.segment),
    "start_s": ("float64", lambda hit: hit.start_s),
    "end_s": ("float64", lambda hit: hit.end_s),
    "best_s": ("float64", lambda hit: hit.best_s),
    "text": ("string", lambda hit: hit.text),
    "read": ("string", lambda hit: hit.read),
    "language": ("string", lambda hit: hit.language),
    "similarity": ("float64", lambda hit: hit.parts.get("similarity")),
    "duplicates": ("strings", lambda hit: list(hit.duplicates)),
    "date": ("string", lambda hit: hit.date if hit.document is None else hit.document.date),
    "size": ("int64", lambda hit: None if hit.document is None else hit.document.size),
    "width": ("int64", lambda hit: hit.info.width),
    "height": ("int64", lambda hit: hit.info.height),
    "duration_s": ("float64", lambda hit: hit.info.duration_s),
    "camera": ("string", lambda hit: hit.info.camera),
    "lens": ("string", lambda hit: hit.info.lens),
    "latitude": ("float64", lambda hit: hit.info.latitude),
    "longitude": ("float64", lambda hit: hit.info.longitude),
    "rating": ("int64", lambda hit: hit.info.rating),
}
"""Of each column its type and its value; ``date``, ISO 8601, is when a picture was taken, else its file changed."""


def to_arrow(hits: Sequence[Hit]) -> pyarrow.Table:
    """See `mmsearch.query.nothing.Hits.to_arrow`."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UsageError(f"tables of Arrow need pyarrow, which is not installed: {install_hint('datasets')}") from error
    types = {
        "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "string": pa.string(),
        "strings": pa.list_(pa.string()),
    }  # fmt: skip
    arrays = {name: pa.array(map(value, hits), types[kind]) for name, (kind, value) in COLUMNS.items()}
    return pa.table(arrays)


def to_pandas(hits: Sequence[Hit]) -> pandas.DataFrame:
    """See `mmsearch.query.nothing.Hits.to_pandas`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise UsageError("data frames need pandas, which is not installed: pip install pandas") from error
    kinds = {"int64": "Int64", "float64": "float64", "bool": "bool", "string": "object", "strings": "object"}
    return pd.DataFrame(
        {name: pd.Series([value(hit) for hit in hits], dtype=kinds[kind]) for name, (kind, value) in COLUMNS.items()}
    )
