"""Another model is filled in beside the one that answers, and takes its place in one step."""

from __future__ import annotations

import itertools
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.api import Index
from mmsearch.core.errors import EncoderMismatch, IndexBusy, UsageError
from mmsearch.core.types import EncoderSpec, Progress
from mmsearch.ingest import IngestOptions, ingest
from mmsearch.pipeline import artefacts
from mmsearch.pipeline.stored_contents import match
from mmsearch.store.local.directory import switching
from mmsearch.store.local.optimize import OptimizeOptions
from mmsearch.switch import SwitchOptions, SwitchReport
from tests.ingest.test_archives import photo_bytes, write_tar
from tests.media.video.test_reader import steady, write_clip
from tests.support.colours import COLOURS, ColourEncoder, FloatArray, save_colour


class OtherEncoder(ColourEncoder):
    """Sees the same colours from another side, and reads shorter texts: no vector can be compared with the first's.

    Vectors are as long as the first encoder's, so that mixing them up would show in scores alone.
    """

    max_text_tokens = 6
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))[0].astype(np.float32)

    def __init__(self) -> None:
        super().__init__()
        self.spec = EncoderSpec(name="others", digest="0123" * 16, dim=4, preprocessing="mean colour, turned")

    def encode_prepared(self, inputs: np.ndarray) -> FloatArray:
        return super().encode_prepared(255 - inputs) @ self.turn

    def encode_texts(self, texts: list[str]) -> FloatArray:  # type: ignore[override]
        return super().encode_texts(texts) @ self.turn


@pytest.fixture
def other() -> OtherEncoder:
    return OtherEncoder()


@pytest.fixture
def media(photos: Path) -> Path:
    """Photos, a copy of one, a video, an animation, a text of several passages, and an archive."""
    shutil.copy(photos / "sub" / "red.png", photos / "copy.png")
    write_clip(photos / "clip.mp4", [(0.0, "red"), (3.0, "green"), (6.0, "blue")], steady(9))
    (photos / "notes.md").write_text("A red car. A green tree. It is a blue day.\n\nA yellow sun.\n\nViolet flowers.\n")
    write_tar(photos / "0.tar", {f"{n}.png": photo_bytes(colour, 50 + n) for n, colour in enumerate(COLOURS)})
    return photos


Answers = dict[tuple[str, str | None], list[tuple[str, int, float]]]


def answers(index: Index) -> Answers:
    """Everything that every colour finds, of pictures and of texts, with scores as exact as half precision is."""
    return {
        (colour, kind): sorted(
            (hit.path, hit.segment, round(hit.score, 2))
            for hit in index.search(colour, k=50, modality=kind, words=False)
        )
        for colour, kind in itertools.product(COLOURS, (None, "text"))
    }


def from_scratch(place: Path, media: Path, encoder: ColourEncoder) -> Answers:
    with Index.open(place, create=True, encoder=encoder) as index:
        index.add(media)
        return answers(index)


def model(index: Index, name: str) -> dict:
    return next(one for one in index.status()["models"] if one["model"] == name)


def interrupted_after(index: Index, encoder: ColourEncoder, steps: int, **options: object) -> SwitchReport:
    """A switch that Ctrl-C ends at its ``steps``-th sign of life."""
    count = itertools.count(1)

    def progress(_: Progress) -> None:
        if next(count) == steps:
            raise KeyboardInterrupt

    return index.switch(encoder, options=SwitchOptions(**options), progress=progress)  # type: ignore[arg-type]


def test_the_other_model_answers_as_if_it_had_always_been_there(
    index: Index, media: Path, other: OtherEncoder, tmp_path: Path
) -> None:
    index.add(media)
    before = answers(index)
    report = index.switch(other)
    assert (report.model, report.before, report.answers) == ("others", "colours", True)
    assert (report.coverage.documents, report.coverage.covered, report.left_out) == (19, 19, ())
    assert index.encoder_spec == other.spec
    after = answers(index)
    expected = from_scratch(tmp_path / "scratch", media, other)
    pictures = [key for key in expected if key[1] is None]
    assert {key: after[key] for key in pictures} == {key: expected[key] for key in pictures}
    assert before != after
    assert index.verify(read_bytes=True).clean
    with Index.open(index.path, encoder=OtherEncoder()) as again:
        assert answers(again) == after


def test_a_passage_too_long_for_the_new_model_is_all_read(index: Index, tmp_path: Path, other: OtherEncoder) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("A red car. A green tree. A blue day.\n")
    index.add(tmp_path / "texts")
    assert len(index.search("red", modality="text")) == 1
    index.switch(other)
    parts = other.encode_texts(["A red car.", "A green tree.", "A blue day."]).sum(axis=0)
    space = index._directory.space()
    stored = index._directory.matrix(space)[0].astype(np.float32)
    np.testing.assert_allclose(stored, parts / np.linalg.norm(parts), atol=1e-3)


def test_the_first_model_answers_until_the_second_is_complete(index: Index, media: Path, other: OtherEncoder) -> None:
    index.add(media)
    before = answers(index)
    seen: list[tuple[bool, float]] = []

    def progress(at: Progress) -> None:
        assert answers(index) == before
        seen.append((model(index, "others")["answers"], model(index, "others")["coverage"]))

    index.switch(other, progress=progress)
    assert seen and not any(answering for answering, _ in seen)
    assert [share for _, share in seen] == sorted(share for _, share in seen)
    assert model(index, "others") == {**model(index, "others"), "answers": True, "covered": 19, "coverage": 1.0}
    assert model(index, "colours")["answers"] is False


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_an_interrupted_switch_goes_on_where_it_was(
    index: Index, media: Path, other: OtherEncoder, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artefacts, "PASSAGES", 1)
    index.add(media)
    report = interrupted_after(index, other, steps)
    assert report.interrupted and not report.answers
    assert model(index, "others")["covered"] == report.coverage.covered < 19
    assert index.verify().clean
    done = index.switch(other)
    assert done.answers and done.coverage.covered == 19
    assert report.segments + done.segments == index._directory.catalogue.counts()["segments"]
    assert index.verify().clean


def test_switching_back_only_fills_what_came_since(
    index: Index, media: Path, encoder: ColourEncoder, other: OtherEncoder
) -> None:
    index.add(media)
    before = answers(index)
    index.switch(other)
    save_colour(media / "new.png", "orange", seed=77)
    assert index.add(media).indexed == 1
    assert model(index, "colours")["covered"] == 19 and model(index, "others")["covered"] == 20
    encoded = encoder.encoded_images
    assert index.switch(encoder).segments == 1
    assert encoder.encoded_images == encoded + 1
    (media / "new.png").unlink()
    index.add(media)
    assert answers(index) == before
    assert index.switch(other).segments == 0


def test_what_is_indexed_and_removed_meanwhile_is_right_in_both(
    index: Index, media: Path, encoder: ColourEncoder, other: OtherEncoder, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Another process indexes while the switch runs: one file comes, one changes, one goes."""
    monkeypatch.setattr(artefacts.VectorsOfContents, "commit_rows", 1)
    index.add(media)
    told = []

    def progress(_: Progress) -> None:
        told.append(None)
        if len(told) == 4:
            save_colour(media / "aaa.png", "orange", seed=70)
            save_colour(media / "green.png", "black", seed=71)
            (media / "sub" / "red.png").unlink()
            with Index.open(index.path, encoder=ColourEncoder()) as elsewhere:
                report = elsewhere.add(media)
                assert (report.indexed, report.updated, report.removed) == (1, 1, 1)

    report = index.switch(other, progress=progress)
    assert len(told) >= 4
    assert report.answers and report.left_out == () and report.coverage.covered == 19
    found = answers(index)
    expected = from_scratch(tmp_path / "scratch", media, OtherEncoder())
    assert {key: found[key] for key in found if key[1] is None} == {
        key: expected[key] for key in expected if key[1] is None
    }
    assert index.verify().clean
    index.switch(encoder)
    assert answers(index) == from_scratch(tmp_path / "first", media, ColourEncoder())


def test_removed_documents_leave_both(index: Index, media: Path, encoder: ColourEncoder, other: OtherEncoder) -> None:
    index.add(media)
    index.switch(other)
    index.remove(media / "sub")
    for one in (other, encoder):
        index.switch(one)
        assert not [path for found in answers(index).values() for path, _, _ in found if "/sub/" in path]
        assert index.verify().differences == () or {one.kind for one in index.verify().differences} == {"new file"}
    assert model(index, "others")["coverage"] == model(index, "colours")["coverage"] == 1.0


BROKEN = {
    "is no longer there": lambda path: path.unlink(),
    "it changed since it was indexed": lambda path: save_colour(path, "orange", seed=90, size=(50, 20)),
    "it is no longer a file": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_file_that_broke_since_is_named_and_stops_the_switch(
    index: Index, media: Path, encoder: ColourEncoder, other: OtherEncoder, reason: str
) -> None:
    index.add(media)
    before = answers(index)
    kept = (media / "green.png").read_bytes()
    BROKEN[reason](media / "green.png")
    report = index.switch(other)
    assert (report.answers, report.coverage.left_out, report.coverage.covered) == (False, 1, 18)
    [skip] = report.left_out
    assert skip.path == str(media / "green.png")
    assert reason in skip.reason
    assert answers(index) == before, "the first goes on answering, also for this file"
    assert model(index, "others")["left_out"] == 1

    report = index.switch(other, options=SwitchOptions(leave_out=True))
    assert (report.answers, report.coverage.covered) == (True, 18)
    assert not [path for found in answers(index).values() for path, _, _ in found if path == skip.path]
    assert [one.kind for one in index.verify().differences] != ["incomplete content"]
    if (media / "green.png").is_dir():
        (media / "green.png").rmdir()
    (media / "green.png").write_bytes(kept)
    index.add(media)  # looks at it again
    assert model(index, "others") == {**model(index, "others"), "covered": 19, "left_out": 0, "coverage": 1.0}
    assert index.verify().clean
    index.switch(encoder)
    assert answers(index) == before


def test_a_copy_stands_in_for_a_file_that_is_gone(index: Index, media: Path, other: OtherEncoder) -> None:
    index.add(media)
    (media / "copy.png").unlink()
    assert index.switch(other).left_out == ()
    save_colour(media / "sub" / "red.png", "blue", seed=91)
    assert index.switch(ColourEncoder()).answers, "nothing is left to read"


def test_bytes_that_changed_behind_the_clock_are_not_taken_for_the_old_ones(
    index: Index, media: Path, other: OtherEncoder
) -> None:
    """The same size and time, other bytes; and what one file held lies in the other now."""
    import os

    index.add(media)
    one, two = media / "green.png", media / "yellow.png"
    held, status = one.read_bytes(), one.stat()
    one.write_bytes(bytes(255 - byte if place > 100 else byte for place, byte in enumerate(held)))
    os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns))
    report = index.switch(other)
    assert [Path(skip.path) for skip in report.left_out] == [one]
    one.write_bytes(two.read_bytes())
    report = index.switch(other)
    assert [Path(skip.path) for skip in report.left_out] == [one]
    assert not report.answers


def test_imported_vectors_have_no_file_to_read(index: Index, photos: Path, other: OtherEncoder) -> None:
    index.add(photos)
    vectors = ColourEncoder().encode_texts(["red", "green"])
    rows = [{"path": f"https://x/{n}.jpg", "modality": "image"} for n in range(2)]
    index.add_embeddings(vectors, rows)
    report = index.switch(other)
    assert [skip.path for skip in report.left_out] == ["https://x/0.jpg", "https://x/1.jpg"]
    assert not report.answers and "imported" in report.left_out[0].reason
    assert index.switch(other, options=SwitchOptions(leave_out=True)).answers
    assert len(index.search("red", k=50, words=False)) == 8
    assert index.verify().clean


def test_an_archive_that_lost_a_sample(index: Index, tmp_path: Path, other: OtherEncoder) -> None:
    folder = tmp_path / "data"
    samples = {f"{n}.png": photo_bytes(colour, n) for n, colour in enumerate(COLOURS)}
    write_tar(folder / "0.tar", samples)
    index.add(folder)
    write_tar(folder / "0.tar", dict(list(samples.items())[1:]))
    report = index.switch(other)
    assert [(skip.path, "archive" in skip.reason) for skip in report.left_out] == [(str(folder / "0.tar/0.png"), True)]
    assert report.coverage.covered == 7


def test_a_video_indexed_with_another_interval_keeps_its_moments(
    index: Index, tmp_path: Path, other: OtherEncoder
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    scenes = [(0.0, "red"), (3.0, "green"), (6.0, "blue")]
    write_clip(folder / "clip.mp4", scenes, steady(9), moving=True)
    index.add(folder, options=IngestOptions(frame_interval_s=0.4))
    moments = index._directory.catalogue.sql.execute("SELECT start_s, end_s FROM segments ORDER BY ordinal").fetchall()
    assert index.switch(other).answers
    found = index._directory.catalogue.sql.execute("SELECT start_s, end_s FROM segments ORDER BY ordinal").fetchall()
    assert found == moments
    space = index._directory.space()
    shown = index._directory.matrix(space).astype(np.float32)
    means = {colour: other.encode_prepared(np.full((1, 8, 8, 3), COLOURS[colour])) for _, colour in scenes}
    for row, (start, end) in enumerate(moments):
        expected = next(colour for begin, colour in reversed(scenes) if begin <= (start + end) / 2)
        assert max(means, key=lambda colour: float(means[colour][0] @ shown[row])) == expected


# Nothing is mixed


def test_the_old_encoder_is_refused_by_name_once_the_index_was_switched(
    index: Index, photos: Path, encoder: ColourEncoder, other: OtherEncoder
) -> None:
    index.add(photos)
    held = Index.open(index.path, encoder=encoder)
    assert held.search("red", k=1)
    index.switch(other)
    attempts = [
        lambda: ingest(held._directory, encoder, [photos]),
        lambda: held.search("red"),
        lambda: held.add(photos),
        lambda: held.optimize(OptimizeOptions()),
        lambda: Index.open(index.path, encoder=ColourEncoder()),
        lambda: held._directory.check_encoder(encoder.spec),
    ]
    for attempt in attempts:
        with pytest.raises(EncoderMismatch) as caught:
            attempt()
        assert "colours" in str(caught.value) and "others" in str(caught.value)
    held.close()


def test_vectors_made_for_the_model_before_are_refused(index: Index, photos: Path, other: OtherEncoder) -> None:
    index.add(photos)
    with Index.open(index.path, encoder=ColourEncoder()) as held:
        index.switch(other)
        with pytest.raises(EncoderMismatch, match=r"others.*colours"):
            held.add_embeddings(np.eye(4, dtype=np.float32), [{"path": str(n), "modality": "image"} for n in range(4)])


def test_two_switches_at_once_are_refused(index: Index, photos: Path, other: OtherEncoder) -> None:
    index.add(photos)
    with switching(index._directory), pytest.raises(IndexBusy, match="changing the model"):
        index.switch(other)


@pytest.mark.parametrize("bad", [{"readers": 0}, {"memory_mb": 0}])
def test_senseless_options_are_refused(bad: dict) -> None:
    with pytest.raises(UsageError):
        SwitchOptions(**bad)


def test_space_of_others_is_given_back(index: Index, media: Path, encoder: ColourEncoder, other: OtherEncoder) -> None:
    index.add(media)
    report = interrupted_after(index, other, 6)
    assert len(list(index.path.glob("vectors-*.f16"))) == 2 and not report.answers
    assert index.switch(encoder, options=SwitchOptions(drop_others=True)).dropped == ("others",)
    assert [one["model"] for one in index.status()["models"]] == ["colours"]
    with Index.open(index.path, encoder=ColourEncoder()) as held:
        before = answers(held)
        assert index.switch(other, options=SwitchOptions(drop_others=True)).dropped == ("colours",)
        assert len(list(index.path.glob("vectors-*.f16"))) == len(list(index.path.glob("background-*.npz"))) == 1
        with pytest.raises(EncoderMismatch):
            held.search("red")
    assert index.verify().clean
    index.switch(encoder)
    assert answers(index) == before


def test_filling_alone_switches_nothing(index: Index, photos: Path, other: OtherEncoder) -> None:
    index.add(photos)
    report = index.switch(other, options=SwitchOptions(activate=False))
    assert (report.answers, report.coverage.covered) == (False, 8)
    assert index.encoder_spec.name == "colours"
    assert index.switch(other).segments == 0
    assert index.encoder_spec.name == "others"


def test_compacting_serves_both(index: Index, media: Path, encoder: ColourEncoder, other: OtherEncoder) -> None:
    index.add(media)
    index.switch(other)
    index.remove(media / "sub")
    found = answers(index)
    index.optimize(OptimizeOptions(compact=True))
    assert answers(index) == found
    directory = index._directory
    assert all(not len(directory.catalogue.dead_rows(space.id)) for space in directory.catalogue.spaces())
    index.switch(encoder)
    assert index.verify(mend=True).clean
    assert {key: len(value) for key, value in answers(index).items()} != {}


def test_two_encoders_of_equal_weights_have_files_of_their_own(index: Index, photos: Path, tmp_path: Path) -> None:
    """Other preprocessing makes another encoder, though the digest of its weights names the same file."""
    index.add(photos)
    narrow = ColourEncoder()
    narrow.spec = EncoderSpec("narrow", narrow.spec.digest, 4, "mean colour of the middle")
    index.switch(narrow)
    files = {space.file for space in index._directory.catalogue.spaces()}
    assert len(files) == 2 and all((index.path / file).exists() for file in files)
    index.remove(photos / "sub")
    index.optimize(OptimizeOptions(compact=True))
    spaces = index._directory.catalogue.spaces()
    assert len({space.file for space in spaces}) == 2
    assert all(index._directory.vector_file(space).rows_on_disk() == 4 for space in spaces)
    assert len(index.search("red", k=9)) == 4


def test_damaged_vectors_of_a_model_beside_are_found_and_made_again(
    index: Index, media: Path, encoder: ColourEncoder, other: OtherEncoder
) -> None:
    index.add(media)
    before = answers(index)
    index.switch(other, options=SwitchOptions(activate=False))
    space = index._directory.space_of(other.spec)
    assert space is not None
    with (index.path / space.file).open("r+b") as file:
        file.seek(3 * 8)
        file.write(b"\xff" * 16)  # two rows of 4 half-precision values, all NaN
    assert [one.kind for one in index.verify().differences] == ["bad vector"] * 2
    assert index.verify(mend=True).clean
    assert answers(index) == before
    assert index.switch(other).segments == 2


# Under load


def test_readers_never_see_an_error_or_a_mixture(
    index: Index, media: Path, encoder: ColourEncoder, other: OtherEncoder, tmp_path: Path
) -> None:
    index.add(media)
    allowed = [answers(index), {}]
    failures: list[BaseException] = []
    seen: set[int] = set()
    stop = threading.Event()

    def ask(colours: list[str]) -> None:
        try:
            for colour in itertools.cycle(colours):
                hits = index.search(colour, k=50, words=False)
                found = sorted((hit.path, hit.segment, round(hit.score, 2)) for hit in hits)
                recorded.append((colour, found))
                if stop.is_set():
                    return
        except BaseException as error:
            failures.append(error)

    recorded: list[tuple[str, list[tuple[str, int, float]]]] = []
    threads = [threading.Thread(target=ask, args=(list(COLOURS)[n:] + list(COLOURS)[:n],)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            index.switch(other, options=SwitchOptions(drop_others=True))
            allowed[1] = allowed[1] or answers(index)
            index.switch(encoder, options=SwitchOptions(drop_others=True))
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failures == []
    for colour, found in recorded:
        matching = [number for number, one in enumerate(allowed) if one[colour, None] == found]
        assert matching, "an answer of neither model"
        seen.update(matching)
    assert seen == {0, 1}, "both models were seen answering"


@given(st.lists(st.floats(0.1, 3), min_size=1, max_size=12), st.lists(st.floats(0.1, 3), min_size=1, max_size=12))
def test_the_frame_of_a_moment_is_the_one_that_overlaps_it_most(one: list[float], two: list[float]) -> None:
    stored, decoded = ([*itertools.pairwise([0.0, *itertools.accumulate(lengths)])] for lengths in (one, two))
    chosen = match(stored, decoded)
    assert chosen is not None and len(chosen) == len(stored)
    for (start, end), number in zip(stored, chosen, strict=True):
        overlaps = [min(end, stop) - max(start, begin) for begin, stop in decoded]
        assert overlaps[number] == max(overlaps)
    assert match(stored, stored) == list(range(len(stored)))


def test_pictures_without_times_are_matched_by_their_number_or_not_at_all() -> None:
    none = (None, None)
    assert match([none, none], [none, none]) == [0, 1]
    assert match([none, none], [none]) is None
    assert match([none], []) is None
    assert match([(0.0, 1.0)], []) is None
