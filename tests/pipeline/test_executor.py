"""Another engine runs the same pipeline: items, readers, batch functions and results go through pickle, as between
machines, and what is committed is what the threads commit.
"""

from __future__ import annotations

import pickle
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.ingest import IngestOptions
from mmsearch.pipeline.compute import BatchFunction, ImageVectors, TextVectors
from mmsearch.pipeline.executor import Computed, Executor, Result, Round, ThreadExecutor
from mmsearch.pipeline.plan import ArchiveWork, Work
from mmsearch.pipeline.reading import ArchiveEnd, Failed, Kind, Piece
from mmsearch.store.local.commit import ContentKey
from tests.ingest.test_archives import photo_bytes, write_tar
from tests.media.test_ocr import GreyReader, save_text
from tests.media.video.test_reader import steady, write_clip
from tests.support.colours import COLOURS, ColourEncoder, save_colour
from tests.switch.test_switch import OtherEncoder


def sent(thing: Any) -> Any:
    """As it arrives in another process."""
    return pickle.loads(pickle.dumps(thing))


class Elsewhere(Executor):
    """Everything is read, then everything is computed in one batch, and results come in a random order."""

    runs = 0

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()
        self._seen: set[ContentKey] = set()

    def run(self, part: Round, functions: Mapping[Kind, BatchFunction], take: Callable[[Result], None]) -> None:
        type(self).runs += 1
        read: list[Any] = [message for item in part.work for message in self._read(part, item)]
        messages = [*part.pieces, *read]
        results: list[Result] = [message for message in messages if not isinstance(message, Piece)]
        for kind, function in functions.items():
            pieces = [message for message in messages if isinstance(message, Piece) and message.kind == kind]
            if pieces:
                outputs = sent(sent(function)(sent([piece.input for piece in pieces])))
                results += [Computed([row]) for row in zip(pieces, outputs, strict=True)]
        random.Random(len(results)).shuffle(results)
        for result in results:
            take(result)

    def settled(self, item: ContentKey) -> None:
        self._seen.discard(item)

    def _read(self, part: Round, item: Work | ArchiveWork) -> list[Any]:
        reader = sent(part.reader)
        if isinstance(item, Work):
            return list(reader.read(sent(item), look=lambda key: self._look(part, key)))
        messages: list[Any] = []
        for sample in reader.open_archive(sent(item)):
            if isinstance(sample, ArchiveEnd | Failed):
                messages.append(sent(sample))
            else:
                messages += reader.read(*sample, look=lambda key: self._look(part, key))
        return messages

    def _look(self, part: Round, item: ContentKey) -> Any:
        known = part.known(item)
        if known is None and item in self._seen:
            return "twin"
        self._seen.add(item)
        return known


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> type[Elsewhere]:
    monkeypatch.setattr("mmsearch.ingest.run.ThreadExecutor", Elsewhere)
    monkeypatch.setattr("mmsearch.switch.run.ThreadExecutor", Elsewhere)
    monkeypatch.setattr(Elsewhere, "runs", 0)
    return Elsewhere


@pytest.fixture
def media(photos: Path) -> Path:
    shutil.copy(photos / "sub" / "red.png", photos / "copy.png")
    write_clip(photos / "clip.mp4", [(0.0, "red"), (3.0, "green"), (6.0, "blue")], steady(9))
    (photos / "notes.md").write_text("A red car. A green tree. It is a blue day.\n\nA yellow sun.\n\nViolet flowers.\n")
    (photos / "broken.png").write_bytes(b"not a picture")
    (photos / "broken too.png").write_bytes(b"not a picture")
    write_tar(photos / "0.tar", {f"{n}.png": photo_bytes(colour, 50 + n) for n, colour in enumerate(COLOURS)})
    return photos


def contents(index: Index) -> dict[tuple[str, int], np.ndarray]:
    """(path, ordinal) → vector of everything that is committed."""
    directory = index._directory
    directory.refresh()
    space = directory.space()
    matrix = directory.matrix(space).astype(np.float32)
    return {
        (one.path, one.ordinal): matrix[one.row] for one in directory.catalogue.find_rows(space.id, range(len(matrix)))
    }


def assert_equal(one: dict[tuple[str, int], np.ndarray], other: dict[tuple[str, int], np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for key, vector in one.items():
        np.testing.assert_allclose(vector, other[key], atol=1e-3)


def indexed_by_threads(place: Path, media: Path) -> Index:
    index = Index.open(place, create=True, encoder=ColourEncoder())
    index.add(media)
    return index


def test_what_another_engine_indexes_is_what_threads_index(
    index: Index, media: Path, tmp_path: Path, elsewhere: type[Elsewhere], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = index.add(media)
    assert elsewhere.runs == 2 and len(report.skipped) == 2
    assert index.add(media).unchanged == report.indexed
    assert index.verify().clean
    save_colour(media / "copy.png", "violet", seed=5)
    (media / "clip.mp4").rename(media / "moved.mp4")
    again = index.add(media)
    assert (again.indexed, again.updated, again.removed) == (0, 2, 0)
    monkeypatch.setattr("mmsearch.ingest.run.ThreadExecutor", ThreadExecutor)
    with indexed_by_threads(tmp_path / "threads", media) as threads:
        assert_equal(contents(index), contents(threads))


def test_another_engine_fills_in_an_encoder_and_reads_text(
    index: Index, media: Path, tmp_path: Path, elsewhere: type[Elsewhere]
) -> None:
    save_text(media / "sign.png", "NO PARKING")
    options = IngestOptions(ocr=GreyReader())
    pictures = index.add(media, options=options).text_read
    assert index.search("parking", k=1)[0].read == "NO PARKING" and pictures > 10
    assert index.switch(OtherEncoder()).answers
    assert elsewhere.runs >= 4
    with Index.open(tmp_path / "scratch", create=True, encoder=OtherEncoder()) as scratch:
        scratch.add(media)
        images = {key: vector for key, vector in contents(scratch).items() if not key[0].endswith(".md")}
    assert_equal({key: vector for key, vector in contents(index).items() if key in images}, images)
    assert index.verify().clean


def test_batch_functions_give_each_input_its_row_whatever_the_batch() -> None:
    encoder = ColourEncoder()
    images = list(np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3)).astype(np.uint8))
    texts = ["red", "a green car and a blue one", "black. white. orange. violet. yellow."]
    for function, inputs in ((ImageVectors(encoder), images), (TextVectors(encoder, cut_long=True), texts)):
        together = function(inputs)
        alone = [function([one])[0] for one in inputs]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one["vector"], other["vector"], atol=1e-6)
            assert np.linalg.norm(one["vector"]) == pytest.approx(1, abs=1e-3)


def test_threads_end_when_the_one_who_takes_results_fails(media: Path, tmp_path: Path) -> None:
    import threading

    class Failing(ColourEncoder):
        def encode_prepared(self, inputs: np.ndarray) -> Any:
            raise RuntimeError("out of luck")

    with Index.open(tmp_path / "index", create=True, encoder=Failing()) as index:
        with pytest.raises(RuntimeError, match="out of luck") as error:
            index.add(media)
        assert not [one for one in threading.enumerate() if one.name.startswith("mmsearch-read")]
        assert error.value is not None
