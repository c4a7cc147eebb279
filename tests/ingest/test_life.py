"""Random lives of a folder, against plain Python: whatever happens on disk, the next run makes the index equal it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from PIL import Image

from mmsearch.api import Index
from tests.support.colours import COLOURS, ColourEncoder

FOLDERS = st.sampled_from(["", "a", "a/b", "a.png", "b"])
"""One of them sorts between a file of the same stem and what follows it."""
STEMS = st.sampled_from(["x", "y", "z"])
NAMES = list(COLOURS)
COLOUR = st.integers(0, len(NAMES) - 1)
SEED = st.integers(0, 3)
BROKEN = b"no picture"


def picture(colour: int, seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(-12, 12, (12, 16, 3))
    pixels = np.clip(np.asarray(COLOURS[NAMES[colour]]) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = {picture(colour, seed): NAMES[colour] for colour in range(len(NAMES)) for seed in range(4)}
"""The oracle's decoder: it knows every picture there is."""


class LifeOfAFolder(RuleBasedStateMachine):
    """The oracle reads the folder with nothing but the standard library after every run."""

    @initialize()
    def begin(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="mmsearch-life-"))
        self.root = self.place / "root"
        self.root.mkdir()
        self.encoder = ColourEncoder()
        self.index = Index.open(self.place / "index", create=True, encoder=self.encoder)
        self.clock = 0
        self.seen: set[bytes] = set()
        self.encoded = 0
        self.fresh = False

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.index.close()
            shutil.rmtree(self.place)

    def write(self, path: Path, data: bytes) -> None:
        """Every write has a time of its own: a change that leaves size and time alone is for `verify --bytes`."""
        if path.is_dir() or any(parent.is_file() for parent in path.parents):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.clock += 1
        os.utime(path, ns=(self.clock * 1000, self.clock * 1000))
        self.fresh = False

    @rule(folder=FOLDERS, stem=STEMS, colour=COLOUR, seed=SEED)
    def put_photo(self, folder: str, stem: str, colour: int, seed: int) -> None:
        self.write(self.root / folder / f"{stem}.png", picture(colour, seed))

    @rule(folder=FOLDERS, stem=STEMS)
    def break_photo(self, folder: str, stem: str) -> None:
        self.write(self.root / folder / f"{stem}.png", BROKEN)

    @rule(
        folder=FOLDERS,
        stem=STEMS,
        words=st.sampled_from(["red barn", "blue sea"]),
        suffix=st.sampled_from(["", ".png"]),
    )
    def put_caption(self, folder: str, stem: str, words: str, suffix: str) -> None:
        self.write(self.root / folder / f"{stem}{suffix}.txt", words.encode())

    @rule(stem=STEMS, photos=st.lists(st.tuples(COLOUR, SEED), max_size=4))
    def put_archive(self, stem: str, photos: list[tuple[int, int]]) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for number, (colour, seed) in enumerate(photos):
                for name, data in ((f"{number}.png", picture(colour, seed)), (f"{number}.txt", b"sample %d" % number)):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        self.write(self.root / f"{stem}.tar", buffer.getvalue())

    @rule(number=st.integers(0, 30))
    def delete_something(self, number: int) -> None:
        things = sorted(self.root.rglob("*"))
        if things:
            thing = things[number % len(things)]
            shutil.rmtree(thing) if thing.is_dir() else thing.unlink()
            self.fresh = False

    @rule(number=st.integers(0, 30), folder=FOLDERS, stem=STEMS)
    def move_something(self, number: int, folder: str, stem: str) -> None:
        things = sorted(path for path in self.root.rglob("*") if path.is_file())
        target = self.root / folder
        if things and not target.is_file() and not any(parent.is_file() for parent in target.parents):
            thing = things[number % len(things)]
            goal = target / f"{stem}{thing.suffix}"
            target.mkdir(parents=True, exist_ok=True)
            if not goal.exists():
                thing.rename(goal)
                self.fresh = False

    @precondition(lambda self: self.fresh)
    @rule()
    def rename_the_root_and_run(self) -> None:
        """Nothing else changes meanwhile: a document of the old root whose content is nowhere would wait for it."""
        encoded = self.encoder.encoded_images
        self.root = self.root.rename(self.place / ("other" if self.root.name == "root" else "root"))
        self.run()
        assert self.encoder.encoded_images == encoded

    @rule(stops_after=st.integers(1, 6))
    def run_and_interrupt(self, stops_after: int) -> None:
        calls = [stops_after]

        def progress(_: object) -> None:
            calls[0] -= 1
            if calls[0] == 0:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):  # it may come while the disk is looked at
            self.index.add(self.root, progress=progress)
        self.fresh = False

    @rule()
    def run(self) -> None:
        report = self.index.add(self.root)
        expected, skipped = self.expected()
        assert report.indexed + report.unchanged + report.updated == len(expected)
        assert len(report.skipped) == skipped
        assert not report.interrupted
        self.fresh = True
        again = self.index.add(self.root)
        assert (again.indexed, again.updated, again.removed) == (0, 0, 0)
        assert again.unchanged == len(expected)

    @invariant()
    def the_index_equals_the_folder(self) -> None:
        if not getattr(self, "fresh", False):
            return
        expected, _ = self.expected()
        catalogue = self.index._directory.catalogue
        rows = catalogue.sql.execute("SELECT path, caption FROM documents WHERE modality = 'image'").fetchall()
        assert dict(rows) == {path: caption for path, (_, caption) in expected.items() if not path.endswith(".txt")}
        for colour, count in Counter(name for name, _ in expected.values()).items():
            if colour in COLOURS:
                hits = self.index.search(colour, k=count, words=False)
                found = {Path(hit.path).relative_to(self.root).as_posix() for hit in hits}
                assert found == {path for path, (name, _) in expected.items() if name == colour}
        verdict = self.index.verify(read_bytes=True)
        assert verdict.clean, verdict

    def expected(self) -> tuple[dict[str, tuple[str, str | None]], int]:
        """Path → (colour, caption) of every document, and how many files are skipped."""
        files = {path.relative_to(self.root).as_posix(): path for path in self.root.rglob("*") if path.is_file()}
        documents: dict[str, tuple[str, str | None]] = {}
        captions: set[str] = set()
        skipped = 0
        for name, path in files.items():
            if path.suffix == ".png":
                beside = [one for one in (f"{name}.txt", f"{name[:-4]}.txt") if one in files]
                captions.update(beside)
                if path.read_bytes() == BROKEN:
                    skipped += 1
                else:
                    caption = files[beside[0]].read_text() if beside else None
                    documents[name] = (PICTURES[path.read_bytes()], caption)
            elif path.suffix == ".tar":
                before = len(documents)
                with tarfile.open(path) as tar:
                    for member in tar:
                        if member.name.endswith(".png"):
                            reader = tar.extractfile(member)
                            assert reader is not None
                            number = member.name.removesuffix(".png")
                            documents[f"{name}/{member.name}"] = (PICTURES[reader.read()], f"sample {number}")
                skipped += len(documents) == before
        for name in files:
            if name.endswith(".txt") and name not in captions:
                documents[name] = ("a text", None)
        return documents, skipped


LifeOfAFolder.TestCase.settings = settings(
    max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLifeOfAFolder = LifeOfAFolder.TestCase
