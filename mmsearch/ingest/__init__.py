"""The `index` line: paths → walk → changed only → decode → encode → commit → report."""

from mmsearch.ingest.run import IngestOptions, ingest, remove

__all__ = ["IngestOptions", "ingest", "remove"]
