"""mmsearch: search your own photos, videos and texts by meaning.

from mmsearch import Index
with Index.open("./index", create=True) as index:
    index.add(["./photos"])
    print(index.search("mountain lake", k=5)[0].path)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime from 1.29 on reports to its makers over the network unless this is set before it is first imported;
# its own switch in Python comes too late. mmsearch opens no connection that nobody asked for.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from mmsearch.api import Index as Index
    from mmsearch.core.errors import MmsearchError as MmsearchError
    from mmsearch.core.types import EncoderSpec as EncoderSpec
    from mmsearch.core.types import Hit as Hit
    from mmsearch.core.types import Progress as Progress
    from mmsearch.core.types import Report as Report
    from mmsearch.core.types import Skip as Skip
    from mmsearch.ingest import IngestOptions as IngestOptions
    from mmsearch.models.encoders import open_encoder as open_encoder
    from mmsearch.models.encoders.base import Encoder as Encoder
    from mmsearch.models.encoders.base import EncoderOptions as EncoderOptions
    from mmsearch.models.rerankers.base import Reranker as Reranker
    from mmsearch.models.rerankers.base import RerankerSpec as RerankerSpec
    from mmsearch.query import Question as Question
    from mmsearch.query import SearchOptions as SearchOptions
    from mmsearch.switch import SwitchOptions as SwitchOptions

__version__ = "0.1.0"

_HOMES = {
    "Index": "mmsearch.api.index",
    "open_encoder": "mmsearch.models.encoders",
    "Encoder": "mmsearch.models.encoders.base",
    "EncoderOptions": "mmsearch.models.encoders.base",
    "EncoderSpec": "mmsearch.core.types",
    "Reranker": "mmsearch.models.rerankers.base",
    "RerankerSpec": "mmsearch.models.rerankers.base",
    "MmsearchError": "mmsearch.core.errors",
    "IngestOptions": "mmsearch.ingest",
    "Question": "mmsearch.query",
    "SearchOptions": "mmsearch.query",
    "SwitchOptions": "mmsearch.switch",
    "Hit": "mmsearch.core.types",
    "Progress": "mmsearch.core.types",
    "Report": "mmsearch.core.types",
    "Skip": "mmsearch.core.types",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: `import mmsearch` itself must cost nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mmsearch' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
