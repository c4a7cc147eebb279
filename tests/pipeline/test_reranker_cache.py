"""Image tokens kept with an index: written and committed like vectors, read instead of pictures, made again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mmsearch.api import Index
from mmsearch.core.errors import IndexDamaged, ModelMissing, UsageError, VectorError
from mmsearch.ingest import IngestOptions
from mmsearch.pipeline import artefacts
from mmsearch.query import SearchOptions
from mmsearch.store.local.catalogue.reranker_cache import places_of_rows, token_table
from mmsearch.store.local.commit import compact
from mmsearch.store.local.directory import IndexDirectory
from mmsearch.store.local.files.tokens import TokenFile
from mmsearch.store.local.optimize import OptimizeOptions
from tests.support.colours import COLOURS, ColourEncoder, save_colour

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from tests.models.rerankers.test_rerankers import OPTIONS, encoder, halves  # noqa: E402, F401

KEEP = IngestOptions(keep_tokens="builtin")


@settings(deadline=None, max_examples=40)
@given(arrays.arrays(np.float16, (3, 4, 5), elements=st.floats(-200, 200, width=16)))
def test_a_token_file_gives_back_what_was_put_in(tmp_path_factory: pytest.TempPathFactory, tokens: np.ndarray) -> None:
    file = TokenFile(tmp_path_factory.mktemp("tokens") / "t.i8", (4, 5))
    file.append(tokens[:1], at=0)
    file.append(tokens[1:], at=1)
    assert file.bytes_on_disk() == 3 * file.bytes_per_image == 3 * (4 * 2 + 4 * 5)
    found = file.read([2, 0], 3).astype(np.float32)
    expected = tokens[[2, 0]].astype(np.float32)
    largest = np.abs(expected).max(axis=-1, keepdims=True)
    assert (np.abs(found - expected) <= largest * (1 / 254 + 2e-3) + 1e-4).all()
    assert not len(file.bad_rows(3))


def test_a_token_file_refuses_what_is_no_token(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "t.i8", (2, 3))
    with pytest.raises(VectorError, match=r"\(n, 2, 3\), got \(1, 3, 2\)"):
        file.append(np.zeros((1, 3, 2), np.float16), at=0)
    with pytest.raises(VectorError, match="NaN"):
        file.append(np.full((1, 2, 3), np.nan, np.float16), at=0)
    with pytest.raises(IndexDamaged, match="committed 2"):
        file.append(np.zeros((1, 2, 3), np.float16), at=2)


@pytest.fixture(scope="module")
def model(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """An encoder with a reranker beside it that has hardly learned anything."""
    from mmsearch.training.reranker_fit import train_reranker

    output, folder = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("halves")
    pairs = halves(folder, 1, 0)
    train_reranker(encoder, pairs, pairs, replace(OPTIONS, epochs=1, dev_queries=4), output)
    return output


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """24 photos, one of them twice, and an animation of three frames."""
    for number in range(24):
        save_colour(tmp_path / "photos" / f"{number:02}.png", list(COLOURS)[number % 8], seed=number)
    shutil.copyfile(tmp_path / "photos" / "00.png", tmp_path / "photos" / "copy.png")
    frames = [Image.new("RGB", (30, 30), COLOURS[name]) for name in ("red", "green", "blue")]
    frames[0].save(tmp_path / "photos" / "moving.gif", save_all=True, append_images=frames[1:], duration=500)
    (tmp_path / "photos" / "words.txt").write_text("a red thing\n")
    return tmp_path / "photos"


def kept(index: Index) -> dict[tuple[str, int], np.ndarray]:
    """(path, ordinal) → tokens of all that has any, read as a search reads them."""
    directory = index._directory
    space = directory.space()
    rows = list(range(space.row_count))
    table = token_table(directory.catalogue)
    if table is None:
        return {}
    _, places = places_of_rows(directory.catalogue, table.digest, space.id, rows)
    file = TokenFile(directory.path / table.file, table.shape)
    return {
        (Path(one.path).name, one.ordinal): file.read([places[one.row]], table.row_count)[0]
        for one in directory.catalogue.find_rows(space.id, rows)
        if one.row in places
    }


def assert_same_tokens(one: dict[Any, np.ndarray], other: dict[Any, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for key, tokens in one.items():
        np.testing.assert_allclose(tokens.astype(np.float32), other[key].astype(np.float32), atol=0.03)


def test_they_are_made_while_indexing(model: Path, photos: Path, tmp_path: Path) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=str(model)) as index:
        seen: list[str] = []
        index.add(photos, options=KEEP, progress=lambda one: seen.append(one.stage))
        assert "tokens" not in seen, "from the same run of the space as the vectors, nothing is left to fill in"
        found, reranker = kept(index), index.reranker()
        assert len(found) == 25 + 3
        for (name, _), tokens in found.items():
            if name != "moving.gif":
                with Image.open(photos / name) as picture:
                    expected = reranker.image_tokens([picture])[0]
                np.testing.assert_allclose(tokens.astype(np.float32), expected.astype(np.float32), atol=0.03)
        assert not np.allclose(found["moving.gif", 0], found["moving.gif", 2], atol=0.03)
        told = index.status()["tokens"]
        size = 9 * 2 + 9 * 32
        assert told == {"reranker": "builtin", "images": 27, "of": 27, "bytes": 27 * size, "bytes_per_image": size}
        with pytest.MonkeyPatch.context() as patch:  # nothing to do, nothing to open
            patch.setattr(artefacts, "open_reranker", None)
            index.add(photos)
        index.add(save_colour(photos / "new.png", "red", seed=99).parent)  # without saying it again
        assert len(kept(index)) == 29 and index.verify().clean
        (photos / "new.png").unlink()
        index.add(photos)
        assert len(kept(index)) == 28


def test_a_reranked_question_opens_no_picture(model: Path, photos: Path, tmp_path: Path) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=str(model)) as index:
        index.add(photos)
        before = index.search("red blue", k=40, reranker="builtin", words=False)
        index.add(photos, options=KEEP)
        after = index.search("red blue", k=40, reranker="builtin", words=False)
        # Kept tokens are rounded to 8 bits, so photos of the same colours may change places.
        moved = {hit.path: hit.parts.get("rerank", 0.0) for hit in before}
        assert {hit.path: hit.parts.get("rerank", 0.0) for hit in after} == pytest.approx(moved, abs=3e-3)
        assert sum("rerank" in hit.parts for hit in after) > 10
        shutil.rmtree(photos)
        gone = index.search("red blue", k=40, reranker="builtin", words=False)
        assert gone == after
        limited = SearchOptions(k=40, words=0.0, reranker="builtin", rerank_budget_s=60)
        assert index.search("red blue", options=limited) == after
        assert index.drop_tokens() > 0 and index.status()["tokens"] is None
        assert not any("rerank" in hit.parts for hit in index.search("red blue", k=20, reranker="builtin"))


def test_filled_in_later_they_are_the_same(model: Path, photos: Path, tmp_path: Path) -> None:
    with Index.open(tmp_path / "at-once", create=True, encoder=str(model)) as index:
        index.add(photos, options=KEEP)
        at_once = kept(index)
    with Index.open(tmp_path / "later", create=True, encoder=str(model)) as index:
        index.add(photos)
        assert kept(index) == {} and index.status()["tokens"] is None
        seen = []
        report = index.add(photos, options=KEEP, progress=lambda one: seen.append(one.stage))
        assert report.indexed == 0 and report.unchanged == 27 and seen.count("tokens") == 25
        assert_same_tokens(at_once, kept(index))


def test_removed_and_compacted(model: Path, photos: Path, tmp_path: Path) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=str(model)) as index:
        index.add(photos, options=KEEP)
        before = kept(index)
        index.remove([photos / f"{number:02}.png" for number in range(5, 20)])
        after = kept(index)
        assert after.keys() == {key for key in before if not (key[0][:2].isdecimal() and 5 <= int(key[0][:2]) < 20)}
        size = index.status()["tokens"]["bytes"]
        index.optimize(OptimizeOptions(compact=True))
        assert_same_tokens(after, kept(index))
        assert index.status()["tokens"]["bytes"] == size - 15 * index.status()["tokens"]["bytes_per_image"]
        assert {one.kind for one in index.verify().differences} == set()
        assert len(list(index.path.glob("tokens-*"))) == 1
        with index._directory.writing() as writer:
            assert compact(writer) == 0
        index.add(photos)
        assert_same_tokens(before, kept(index))


def test_verify_finds_what_is_wrong_and_mends_it(model: Path, photos: Path, tmp_path: Path) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=str(model)) as index:
        index.add(photos, options=KEEP)
        whole = kept(index)
        [file] = index.path.glob("tokens-*.i8")
        row = index.status()["tokens"]["bytes_per_image"]
        content = bytearray(file.read_bytes())
        content[3 * row : 3 * row + 2] = np.array([np.nan], "<f2").tobytes()
        file.write_bytes(bytes(content[: 20 * row + 7]))
        assert {one.kind for one in index.verify().differences} == {"tokens missing", "bad tokens"}
        assert index.search("red", k=5, reranker="builtin"), "a search does without them"
        assert index.verify(mend=True).clean
        assert_same_tokens(whole, kept(index))
        with file.open("ab") as longer:
            longer.write(b"left by a crash")
        (index.path / "tokens-of-somebody-1.i8").write_bytes(b"x")
        assert {one.kind for one in index.verify().differences} == {"uncommitted tokens", "stray file"}
        index.add(photos)
        assert file.stat().st_size == 28 * row, "one row is nobody's until the next compaction"


def test_another_reranker_takes_their_place(model: Path, photos: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(model, tmp_path / "mine")
    with Index.open(tmp_path / "index", create=True, encoder=str(mine)) as index:
        index.add(photos, options=KEEP)
        [first] = index.path.glob("tokens-*.i8")
    description = (mine / "reranker.json").read_text()
    digest = json.loads(description)["digest"]
    (mine / "reranker.json").write_text(description.replace(digest, "f" * 64))
    with Index.open(tmp_path / "index") as index:
        assert sum("rerank" in hit.parts for hit in index.search("red", k=20, reranker="builtin", words=False)) > 5
        index.add(photos)  # tokens of two rerankers do not mix
        assert len(kept(index)) == 28 and [*index.path.glob("tokens-*.i8")] == [first]
        index.add(photos, options=KEEP)
        assert [file.name[:19] for file in index.path.glob("tokens-*.i8")] == ["tokens-ffffffffffff"]
        assert len(kept(index)) == 28


def test_an_encoder_without_reranker_says_so(photos: Path, tmp_path: Path) -> None:
    with Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        with pytest.raises(ModelMissing, match="has no reranker of its own"):
            index.add(photos, options=KEEP)
        assert index.add(photos).indexed == 27


KILLED = """
import sys
from mmsearch.api import Index
from mmsearch.store.local.catalogue import Catalogue
from mmsearch.ingest import IngestOptions
from mmsearch.pipeline import fill
from mmsearch.pipeline.artefacts import RerankerCache
from mmsearch.store.local import commit
from mmsearch.store.local.files.tokens import TokenFile
from tests.support.colours import die_at

photos, place, model, when, name, call = sys.argv[1:]
fill.COMMIT_SECONDS, fill.COMMIT_SHARE, RerankerCache.commit_rows = 0.0, float("inf"), 5
owner = {"append": TokenFile, "put_tokens": commit, "set_row_count": Catalogue}[name]
die_at(owner, name, when, int(call))
with Index.open(place, create=True, encoder=model) as index:
    index.add(photos, options=IngestOptions(keep_tokens="builtin"))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("moment", ["after append 2", "after put_tokens 2", "before set_row_count 2"])
@pytest.mark.parametrize("later", [False, True])
def test_killed_at_the_worst_moments(model: Path, photos: Path, tmp_path: Path, moment: str, later: bool) -> None:
    place, root = tmp_path / "index", Path(__file__).parents[2]
    if later:
        with Index.open(place, create=True, encoder=str(model)) as index:
            index.add(photos)
        moment = moment.replace("before set_row_count 2", "before put_tokens 2")
    process = subprocess.run(
        [sys.executable, "-c", KILLED, photos, place, model, *moment.split()],
        cwd=root, timeout=100, env={**os.environ, "PYTHONPATH": str(root)}, check=False,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, "the moment was never reached"
    with Index.open(place, encoder=str(model)) as index:
        before = kept(index)
        table = token_table(index._directory.catalogue)
        assert len(before) < 28 and (table is None or table.row_count < 27)
        index.add(photos, options=KEEP)
        after = kept(index)
        assert len(after) == 28 and index.verify().clean
        for key, tokens in before.items():
            assert np.array_equal(tokens, after[key])
        assert index.status()["tokens"]["bytes"] == 27 * index.status()["tokens"]["bytes_per_image"]


def test_as_a_program(model: Path, photos: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from mmsearch.cli.commands import app

    def run(*words: str) -> str:
        return CliRunner().invoke(app, [*words, "--index", str(tmp_path / "index")], catch_exceptions=False).output

    run("index", str(photos), "--model", str(model), "--keep-tokens")
    assert "tokens     of 27 of 27 pictures and frames for the reranker builtin (" in run("status")
    shutil.rmtree(photos)
    told = run("query", "--rerank", "red blue", "--explain", "--all", "--rerank-budget", "60s")
    assert "rerank" in told and "not reranked" not in told
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="give both"):
        run("index", str(tmp_path / "none"), "--reranker", "some/blip")
    run("index", str(tmp_path / "none"), "--no-keep-tokens")
    assert "tokens " not in run("status")
    assert IndexDirectory.exists(tmp_path / "index") and not list((tmp_path / "index").glob("tokens-*"))
