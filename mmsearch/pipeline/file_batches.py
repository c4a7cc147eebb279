"""The pure batch function of indexing, for any engine: files in, what became of each out.

An engine opens one `FileBatches` in each of its processes. Ray's actors hand it work items (`mmsearch.pipeline.ray`);
Spark's ``mapInPandas`` and whoever writes Parquet asks `FileBatches.rows` for plain rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from mmsearch.media import decoder_for
from mmsearch.media.base import DecodeOptions
from mmsearch.pipeline.compute import BatchFunction, ImageVectors, TextVectors
from mmsearch.pipeline.executor import Computed, Result, Round, ThreadExecutor
from mmsearch.pipeline.plan import ArchiveWork, Scope, Work
from mmsearch.pipeline.reading import Failed, Finished, Kind, Reader
from mmsearch.sources import FileEntry, is_remote, located
from mmsearch.sources.base import reason_of
from mmsearch.store.local.catalogue import Root

if TYPE_CHECKING:
    from mmsearch.models.encoders.base import Encoder

REMOTE_READERS = 8
"""Threads that read from a store of objects; they wait most of the time."""


@dataclass(frozen=True)
class Settings:
    """What a process must know; all of it can be pickled. ``open`` opens the encoder; ``options``: fields of
    `DecodeOptions` but for the tokenizer, which the encoder brings; ``memory_mb``: megabytes that decoded inputs may
    take while they wait.
    """

    open: Callable[[], Encoder]
    options: Mapping[str, Any] = field(default_factory=dict)
    memory_mb: float = 256.0


class FileBatches:
    """Opened once in each process. ``functions``: who computes, where that is not this process."""

    def __init__(self, settings: Settings, functions: Mapping[Kind, BatchFunction] | None = None) -> None:
        encoder = settings.open()
        self.spec = encoder.spec
        self._settings = settings
        options = {"min_side": encoder.input_size, "max_tokens": encoder.max_text_tokens, **settings.options}
        self._options = DecodeOptions(**options, count_tokens=encoder.count_tokens)
        self._reader = Reader(encoder.prepare_image, self._options)
        self._functions = functions or {"image": ImageVectors(encoder), "text": TextVectors(encoder)}

    def __call__(self, items: Sequence[Work | ArchiveWork]) -> tuple[list[Result], dict[str, float]]:
        """What became of each item, in any order, and the busy seconds of each stage.

        Never raises for what is wrong with a file: that is a `Failed` among the results.
        """
        waits = any(is_remote(item.scope.folder) for item in items)
        executor = ThreadExecutor(REMOTE_READERS if waits else 1, self._settings.memory_mb)
        results: list[Result] = []
        executor.run(Round(items, self._reader), self._functions, results.append)
        return results, dict(executor.seconds)

    def rows(self, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
        """A row a segment: ``path``, ``modality``, ``hash`` (hexadecimal), ``segment``, ``start_s``, ``end_s``,
        ``text``, ``vector`` (floats) and ``error``; a file that cannot be read is one row with its reason, as is an
        archive, whose samples are no rows of their own here. Equal files are rows each.
        """
        for path in paths:
            work = self._work(path)
            if isinstance(work, str):
                yield {**_NO_ROW, "path": path, "error": work}
                continue
            results, _ = self([work])
            made = {piece.ordinal: (piece, output) for one in results if isinstance(one, Computed)
                    for piece, output in one.rows}  # fmt: skip
            for one in results:
                if isinstance(one, Failed):
                    yield {**_NO_ROW, "path": path, "error": one.reason}
                elif isinstance(one, Finished) and not one.pieces:
                    yield {**_NO_ROW, "path": path, "error": "there is nothing in it to index"}
                elif isinstance(one, Finished):
                    for number, (piece, output) in sorted(made.items()):
                        yield {
                            "path": path, "modality": work.decoder.modality, "hash": one.item[0].hex(),
                            "segment": number, "start_s": piece.start_s, "end_s": piece.end_s, "text": piece.text,
                            "vector": output["vector"].tolist(), "error": None,
                        }  # fmt: skip

    def _work(self, given: str) -> Work | str:
        path = located(given)
        decoder = decoder_for(path)
        if decoder is None:
            return f"files of type {path.suffix} are not supported" if path.suffix else "it has no file suffix"
        try:
            status = path.stat()
        except OSError as error:
            return reason_of(error)
        scope = Scope(Root(0, str(path.parent), False), path.parent, "")
        file = FileEntry(path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return Work(scope, file, decoder, decoder.signature(self._options), None)


_NO_ROW: dict[str, Any] = dict.fromkeys(
    ("path", "modality", "hash", "segment", "start_s", "end_s", "text", "vector", "error")
)


def options_of(options: DecodeOptions) -> dict[str, Any]:
    """What of them can be sent to another process."""
    return {one.name: getattr(options, one.name) for one in fields(DecodeOptions) if one.name != "count_tokens"}
