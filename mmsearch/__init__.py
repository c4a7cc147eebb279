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
    from mmsearch.encoders import open_encoder as open_encoder
    from mmsearch.encoders.base import EncoderOptions as EncoderOptions
    from mmsearch.errors import MmsearchError as MmsearchError
    from mmsearch.ingest import IngestOptions as IngestOptions
    from mmsearch.search import Question as Question
    from mmsearch.search import SearchOptions as SearchOptions
    from mmsearch.switch import SwitchOptions as SwitchOptions
    from mmsearch.types import Hit as Hit
    from mmsearch.types import Progress as Progress
    from mmsearch.types import Report as Report
    from mmsearch.types import Skip as Skip

__version__ = "0.1.0"

_HOMES = {
    "Index": "mmsearch.api",
    "open_encoder": "mmsearch.encoders",
    "EncoderOptions": "mmsearch.encoders.base",
    "MmsearchError": "mmsearch.errors",
    "IngestOptions": "mmsearch.ingest",
    "Question": "mmsearch.search",
    "SearchOptions": "mmsearch.search",
    "SwitchOptions": "mmsearch.switch",
    "Hit": "mmsearch.types",
    "Progress": "mmsearch.types",
    "Report": "mmsearch.types",
    "Skip": "mmsearch.types",
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
