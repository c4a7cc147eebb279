"""Indexing: what is read, what is kept, what is reported."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.errors import EncoderMismatch, IndexBusy, UsageError
from mmsearch.ingest import IngestOptions
from mmsearch.models.encoders.base import FloatArray
from mmsearch.sources import WalkRules
from mmsearch.store.local.directory import IndexDirectory
from tests.support.colours import COLOURS, ColourEncoder, save_colour


def names(index: Index, text: str, k: int = 10, **more: object) -> list[str]:
    return [Path(hit.path).stem for hit in index.search(text, k=k, words=False, **more)]


def test_a_folder_is_indexed_once(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    first = index.add(photos)
    assert (first.indexed, first.unchanged, first.skipped) == (8, 0, ())
    again = index.add(photos)
    assert (again.indexed, again.unchanged, again.updated, again.removed) == (0, 8, 0, 0)
    assert encoder.encoded_images == 8
    for colour in COLOURS:
        assert names(index, colour)[0] == colour


def test_every_kind_of_change_is_noticed(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    index.add(photos)
    save_colour(photos / "pink.png", "red", seed=99)  # new
    save_colour(photos / "sub" / "red.png", "blue", seed=98)  # replaced
    (photos / "green.png").unlink()  # deleted
    os.utime(photos / "yellow.png", ns=(1, 1))  # touched, equal content
    report = index.add(photos)
    assert (report.indexed, report.updated, report.removed, report.unchanged) == (1, 1, 1, 6)
    assert encoder.encoded_images == 10
    assert "green" not in names(index, "green")
    assert names(index, "red")[0] == "pink"


@pytest.mark.parametrize("whole_root", [True, False], ids=["root renamed", "folder inside renamed"])
def test_a_moved_file_keeps_its_vectors(index: Index, photos: Path, encoder: ColourEncoder, whole_root: bool) -> None:
    index.add(photos)
    if whole_root:
        photos = photos.rename(photos.parent / "pictures")
    else:
        (photos / "sub").rename(photos / "elsewhere")
    report = index.add(photos)
    moved = 8 if whole_root else 4
    assert (report.indexed, report.updated, report.unchanged, report.removed) == (0, moved, 8 - moved, 0)
    assert encoder.encoded_images == 8
    assert {Path(hit.path).exists() for hit in index.search("red", k=8)} == {True}
    assert index.status()["documents"]["dead_rows"] == 0


def test_a_renamed_root_leaves_nothing_behind(index: Index, photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    index.add(photos)
    moved = photos.rename(photos.parent / "pictures")
    report = index.add(moved)
    assert (report.updated, len(report.skipped)) == (8, 1)
    assert index.status()["roots"] == [str(moved)]
    assert index.verify().clean


def test_equal_files_share_one_vector_and_both_are_found(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    shutil.copy(photos / "sub" / "red.png", photos / "copy.png")
    report = index.add(photos)
    assert report.indexed == 9
    assert encoder.encoded_images == 8
    assert sorted(names(index, "red", k=2)) == ["copy", "red"]
    (photos / "sub" / "red.png").unlink()
    assert index.add(photos).removed == 1
    assert names(index, "red", k=1) == ["copy"]


def test_bad_files_are_listed_and_cost_nobody_else(index: Index, photos: Path) -> None:
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.jpg").write_text("this is no picture")
    (photos / "cut.png").write_bytes((photos / "green.png").read_bytes()[:200])
    (photos / "readme.pdf").write_bytes(b"%PDF-1.7")
    (photos / "nowhere.jpg").symlink_to(photos / "missing.jpg")
    (photos / "loop").symlink_to(photos)
    report = index.add(photos)
    assert report.indexed == 8
    reasons = {Path(skip.path).name: skip.reason for skip in report.skipped}
    assert set(reasons) == {"empty.jpg", "text.jpg", "cut.png", "readme.pdf", "nowhere.jpg", "loop"}
    assert all(reasons.values())
    again = index.add(photos)
    assert (again.unchanged, again.skipped) == (8, report.skipped)


def test_a_file_mended_later_is_indexed(index: Index, photos: Path) -> None:
    whole = (photos / "green.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[:200])
    assert len(index.add(photos).skipped) == 1
    (photos / "cut.png").write_bytes(whole[:-8] + whole[-8:])
    report = index.add(photos)
    assert (report.indexed, report.skipped) == (1, ())
    assert index.status()["documents"]["skipped"] == 0


def test_a_file_that_breaks_loses_its_old_vectors(index: Index, photos: Path) -> None:
    index.add(photos)
    (photos / "green.png").write_bytes(b"broken")
    report = index.add(photos)
    assert (len(report.skipped), report.unchanged) == (1, 7)
    assert "green" not in names(index, "green")


def test_text_files_give_passages(index: Index, photos: Path) -> None:
    (photos / "notes.txt").write_text("A red thing is here.\n\nThe blue one is there.\n")
    index.add(photos)
    assert all(hit.modality == "image" for hit in index.search("blue", k=20))
    hits = index.search("blue", k=5, modality="text")
    assert [(hit.text, hit.segment) for hit in hits] == [("The blue one is there.", 1)]
    from_image = index.search(image=photos / "sub" / "red.png", modality="text")
    assert from_image[0].text == "A red thing is here."


def test_k_documents_come_although_one_has_many_segments(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "many.txt").write_text("\n\n".join(["red"] * 1 + [f"red red blue {n}" for n in range(200)]))
    (folder / "one.txt").write_text("green")
    (folder / "two.txt").write_text("black")
    index.add(folder)
    assert len(index.search("red", k=3, modality="text")) == 3


def test_roots_inside_each_other_become_one(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    index.add(photos / "sub")
    report = index.add(photos)
    assert (report.indexed, report.unchanged) == (4, 4)
    assert index.status()["roots"] == [str(photos)]
    assert index.add(photos / "sub").unchanged == 4
    assert index.add([photos / "green.png", photos / "sub" / "red.png"]).unchanged == 2
    assert encoder.encoded_images == 8


def test_a_folder_and_a_file_beside_it_in_one_call(index: Index, photos: Path) -> None:
    """The file's folder becomes a root that absorbs the root of the folder named first."""
    assert index.add([photos / "sub", photos / "green.png"]).indexed == 5
    assert index.add([photos / "sub", photos / "green.png"]).unchanged == 5
    assert index.status()["roots"] == [str(photos)]


def test_a_part_of_a_root_drops_only_what_is_gone_there(index: Index, photos: Path) -> None:
    index.add(photos)
    (photos / "green.png").unlink()
    (photos / "sub" / "red.png").unlink()
    assert index.add(photos / "sub").removed == 1
    assert index.add(photos).removed == 1


def test_ignore_rules(index: Index, photos: Path) -> None:
    (photos / ".mmsearchignore").write_text("sub/\n")
    save_colour(photos / ".hidden.png", "red")
    save_colour(photos / "@eaDir" / "thumb.png", "red")
    assert index.add(photos).indexed == 4
    rules = WalkRules(exclude=("green.*",), hidden=True)
    report = index.add(photos, options=IngestOptions(rules=rules))
    assert (report.indexed, report.removed) == (1, 1)  # the hidden one came, green.png went


def test_an_index_beside_the_photos_travels_with_them(photos: Path, encoder: ColourEncoder, tmp_path: Path) -> None:
    with Index.open(photos / ".mmsearch", create=True, encoder=encoder) as index:
        index.add(photos)
    shutil.copytree(photos, tmp_path / "moved")
    shutil.rmtree(photos)
    with Index.open(tmp_path / "moved" / ".mmsearch", encoder=encoder) as index:
        assert index.search("red", k=1)[0].path == str(tmp_path / "moved" / "sub" / "red.png")
        assert index.add(tmp_path / "moved").unchanged == 8


def test_removing_takes_documents_out(index: Index, photos: Path) -> None:
    index.add(photos)
    assert index.remove(photos / "sub") == 4
    assert names(index, "red") and "red" not in names(index, "red")
    with pytest.raises(UsageError, match="nothing in the index"):
        index.remove(photos / "sub")
    assert index.remove(photos) == 4
    assert index.search("red") == []
    assert (photos / "sub" / "red.png").exists()


def test_a_second_writer_is_refused(index: Index, photos: Path) -> None:
    with index._directory.writing(), pytest.raises(IndexBusy, match="another process"):
        index.add(photos)
    assert index.add(photos).indexed == 8


def test_another_encoder_is_refused_and_both_are_named(index: Index, photos: Path) -> None:
    index.add(photos)
    with pytest.raises(EncoderMismatch) as caught:
        Index.open(index.path, encoder=ColourEncoder("shades"))
    assert "colours" in str(caught.value) and "shades" in str(caught.value)


def test_a_missing_folder_is_named(index: Index, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        index.add(tmp_path / "nowhere")


def test_an_interrupt_keeps_what_is_complete(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    def interrupt(progress: object) -> None:
        if encoder.encoded_images >= 4:
            raise KeyboardInterrupt

    report = index.add(photos, progress=interrupt)
    assert report.interrupted
    assert 0 < report.indexed < 8
    assert len(index.search("red", k=20)) == report.indexed
    assert index.add(photos).indexed == 8 - report.indexed
    assert encoder.encoded_images >= 8


def test_what_a_crash_left_behind_is_cut_off(index: Index, photos: Path) -> None:
    index.add(photos)
    space = index._directory.space()
    file = index._directory.vector_file(space)
    file.append(np.full((3, 4), 0.5), at=8)  # appended, never committed
    assert file.rows_on_disk() == 11
    assert len(index.search("red", k=20)) == 8
    save_colour(photos / "late.png", "orange", seed=77)
    index.add(photos)
    assert file.rows_on_disk() == 9
    assert names(index, "orange", k=2).count("late") == 1


def test_searching_while_indexing(index: Index, photos: Path, encoder: ColourEncoder) -> None:
    """A reader sees only committed states: whatever it returns exists and is whole."""
    index.add(photos / "sub")
    seen: list[int] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def search() -> None:
        with Index.open(index.path, encoder=encoder) as reader:
            while not stop.is_set():
                try:
                    seen.append(len(reader.search("red", k=100)))
                except BaseException as error:
                    failures.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    for number in range(60):
        save_colour(photos / f"more{number}.png", "red", seed=number + 1000)
        if number % 10 == 9:
            index.add(photos)
    stop.set()
    thread.join()
    assert not failures
    assert seen == sorted(seen)
    assert len(index.search("red", k=100)) == 68


def test_an_index_directory_with_other_files_is_refused(tmp_path: Path, encoder: ColourEncoder) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        Index.open(tmp_path, create=True, encoder=encoder)


def test_half_made_index_is_finished(tmp_path: Path, encoder: ColourEncoder) -> None:
    place = tmp_path / "index"
    IndexDirectory.create(place, "colours", encoder.spec)
    (place / "manifest.json").unlink()  # a crash just before the manifest was written
    with Index.open(place, create=True, encoder=encoder) as index:
        assert index.search("red") == []


def test_an_interrupt_during_a_batch_waits_for_its_end(photos: Path, tmp_path: Path) -> None:
    """The signal comes while the second batch of four is encoded, and finds it done; of its files, the last may lack
    the message that nothing more comes of them.
    """

    class Interrupted(ColourEncoder):
        def encode_prepared(self, inputs: np.ndarray) -> FloatArray:
            rows = super().encode_prepared(inputs)
            if self.encoded_images == 8:
                signal.raise_signal(signal.SIGINT)
            return rows

    for number in range(8):
        save_colour(photos / f"more-{number}.png", "red", seed=100 + number)
    encoder = Interrupted()
    with Index.open(tmp_path / "interrupted", create=True, encoder=encoder) as index:
        report = index.add(photos)
        assert report.interrupted and 4 < report.indexed <= 8
        rest = index.add(photos)
        assert (rest.interrupted, rest.indexed) == (False, 16 - report.indexed)
        assert encoder.encoded_images == 8 + rest.indexed


def test_an_interrupt_during_a_commit_waits_for_its_end(
    index: Index, photos: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between the transaction and the book-keeping must not commit the same files again."""
    from mmsearch.pipeline.new_files import NewFiles
    from mmsearch.store.local.commit import Batch, Committed

    committed = NewFiles.committed
    rung: list[bool] = []

    def interrupted(self: NewFiles, batch: Batch, done: Committed) -> None:
        if not rung:
            rung.append(True)
            signal.raise_signal(signal.SIGINT)
        committed(self, batch, done)

    monkeypatch.setattr(NewFiles, "committed", interrupted)
    report = index.add(photos)
    assert report.interrupted and report.indexed == 8
    assert index.add(photos).unchanged == 8


def test_many_copies_of_one_file_cost_as_little_as_other_files(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And when all of them move, each keeps its document."""
    from mmsearch.pipeline import new_files

    looks: list[str] = []
    real = new_files.lies_there
    monkeypatch.setattr(new_files, "lies_there", lambda folder, path: looks.append(path) or real(folder, path))
    photo = save_colour(tmp_path / "copies" / "0.png", "red")
    for number in range(1, 300):
        shutil.copy(photo, photo.with_name(f"{number}.png"))
    assert index.add(photo.parent).indexed == 300
    assert len(looks) <= 300
    ids = "SELECT id FROM documents ORDER BY id"
    before = index._directory.catalogue.sql.execute(ids).fetchall()
    moved = photo.parent.rename(tmp_path / "moved")
    assert index.add(moved).updated == 300
    assert index._directory.catalogue.sql.execute(ids).fetchall() == before
    assert len(looks) <= 600
    assert index.verify().clean
