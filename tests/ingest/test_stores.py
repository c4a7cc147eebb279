"""Folders into a store that is no index directory: milvus-lite."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.errors import UsageError
from tests.support.colours import COLOURS, ColourEncoder, save_colour

pytest.importorskip("pymilvus", reason="pymilvus is not installed")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")


@pytest.fixture
def stored(tmp_path: Path, encoder: ColourEncoder) -> Iterator[Index]:
    with Index.open(f"milvus:{tmp_path}/store.db", create=True, encoder=encoder) as opened:
        yield opened


def kept(index: Index) -> dict[str, bytes]:
    """The vectors of all documents, by path."""
    found = {}
    for part in index._session.store().export():
        start = 0
        for one in part.documents:
            found[one.place] = part.vectors[start : start + len(one.segments)].tobytes()
            start += len(one.segments)
    return found


def test_a_folder_is_kept_up_to_date(stored: Index, photos: Path, tmp_path: Path, encoder: ColourEncoder) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    (photos / "what.xyz").write_text("?")
    shutil.copy(photos / "sub" / "red.png", photos / "copy of red.png")
    (photos / "words.txt").write_text("a yellow boat")
    first = stored.add(photos)
    assert (first.indexed, first.updated, first.unchanged, first.removed) == (len(COLOURS) + 2, 0, 0, 0)
    assert sorted(Path(skip.path).name for skip in first.skipped) == ["broken.jpg", "what.xyz"]
    [hit, *_] = stored.search("red", k=3)
    assert hit.path.endswith("red.png")

    # the same vectors as in an index directory
    with Index.open(tmp_path / "directory", create=True, encoder=encoder) as directory:
        report = directory.add(photos)
        assert (report.indexed, len(report.skipped)) == (first.indexed, 2) and kept(directory) == kept(stored)
        assert {skip.reason for skip in report.skipped} == {skip.reason for skip in first.skipped}

    second = stored.add(photos)
    assert (second.indexed, second.updated, second.unchanged, second.removed) == (0, 0, len(COLOURS) + 2, 0)
    assert second.skipped == first.skipped and second.segments == 0
    assert stored.verify().clean

    # one moved, one changed, one new, one deleted; nothing is encoded but the changed and the new one
    (photos / "moved").mkdir()
    (photos / "sub" / "red.png").rename(photos / "moved" / "crimson.png")
    save_colour(photos / "sub" / "blue.png", "green", seed=99)
    save_colour(photos / "new.png", "white", seed=98)
    (photos / "words.txt").unlink()
    kinds = {one.kind for one in stored.verify().differences}
    assert kinds == {"new file", "changed file", "missing file"}
    third = stored.add(photos)
    assert (third.indexed, third.updated, third.removed, third.segments) == (1, 2, 1, 2)
    assert stored.verify(read_bytes=True).clean
    with Index.open(tmp_path / "directory", encoder=encoder) as directory:
        directory.add(photos)
        assert kept(directory) == kept(stored)

    # what vanished with its place is kept, and said
    photos.rename(tmp_path / "away")
    gone = stored.add(photos)
    assert gone.removed == 0 and gone.absent == len(COLOURS) + 2 and gone.absent_at == (str(photos),)
    (tmp_path / "away").rename(photos)
    assert stored.add(photos).unchanged == len(COLOURS) + 2
    assert stored.remove(photos / "moved") == 1
    with pytest.raises(UsageError, match="nothing in the index"):
        stored.remove(tmp_path / "nowhere")


def test_too_much_is_not_believed_to_be_gone(stored: Index, tmp_path: Path) -> None:
    for number in range(24):
        save_colour(tmp_path / "p" / f"{number}.png", "red", seed=number)
    stored.add(tmp_path / "p")
    for number in range(20):
        (tmp_path / "p" / f"{number}.png").unlink()
    kept_ = stored.add(tmp_path / "p")
    assert (kept_.removed, kept_.absent) == (0, 20)
    from mmsearch.ingest import IngestOptions

    assert stored.add(tmp_path / "p", options=IngestOptions(forget_missing=True)).removed == 20


def test_another_encoder_answers_in_one_step(stored: Index, photos: Path, encoder: ColourEncoder) -> None:
    (photos / "words.txt").write_text("a yellow boat")
    stored.add(photos)
    other = ColourEncoder("other")
    before = [hit.path for hit in stored.search("red", k=9)]
    report = stored.switch(other)
    assert report.answers and report.coverage.covered == report.coverage.documents == len(COLOURS) + 1
    assert stored.encoder_spec == other.spec
    assert sorted(before) == sorted(hit.path for hit in stored.search("red", k=9))
    assert stored.switch(encoder).segments == 0, "the vectors of the encoder before are kept"
    assert stored.encoder_spec == encoder.spec and np.isfinite(stored.search("red")[0].score)
