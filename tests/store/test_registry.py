"""Addresses of stores: what is local, what an installed package brings, and a search in a store of somebody else's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.errors import EncoderMismatch, IndexMissing, UsageError
from mmsearch.core.types import EncoderSpec
from mmsearch.store.base import NewDocument, Store, StoreFamily
from mmsearch.store.local.store import LocalStore
from mmsearch.store.registry import STORES, family_of, local_path, open_store
from tests.support.colours import COLOURS, ColourEncoder
from tests.support.memory_store import MemoryStore
from tests.support.program import run_program

HERE = __name__


class Memory(StoreFamily):
    """``memory:NAME``, as long as this process lives."""

    stores: dict[str, MemoryStore] = {}

    def exists(self, address: str) -> bool:
        return address in self.stores

    def open(self, address: str) -> Store:
        return self.stores[address]

    def create(self, address: str, name: str, spec: EncoderSpec) -> Store:
        return self.stores.setdefault(address, MemoryStore(spec))


class Colours(ColourEncoder):
    def __init__(self) -> None:
        super().__init__(f"{HERE}:Colours")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that brings a store, as pip would leave it."""
    info = tmp_path / "site" / "acme_stores-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-stores\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[mmsearch.stores]\nmemory = {HERE}:Memory\nwrong = {HERE}:COLOURS\ngone = no_such_module:X\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    STORES.__dict__.pop("_installed", None)
    yield
    STORES.__dict__.pop("_installed", None)
    for loaded in ("memory", "wrong"):
        STORES._loaded.pop(loaded, None)
    Memory.stores.clear()


@pytest.fixture
def filled(installed: None, photos: Path) -> str:
    """The address of a store with a photo of each colour, filled from Python."""
    encoder = Colours()
    vectors = encoder.encode_texts(list(COLOURS))
    rows = [
        {"path": str(next(photos.rglob(f"{name}.png"))), "modality": "image", "caption": f"all {name}"}
        for name in COLOURS
    ]
    with Index.open("memory://colours", create=True, encoder=encoder) as index:
        report = index.add_embeddings(vectors, rows)
        assert (report.indexed, report.updated, report.segments) == (8, 0, 8)
        again = index.add_embeddings(vectors[:2], rows[:2])
        assert (again.indexed, again.updated) == (0, 2)
    return "memory://colours"


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("photos", "home/photos"), ("local:photos", "home/photos"), ("local://photos", "home/photos"),
        ("local:./a/b", "a/b"), ("local:///data/x", "/data/x"), ("./a:b", "a:b"), ("/data/trip:1", "/data/trip:1"),
        ("a:", "home/a:"), (Path("memory:x"), "memory:x"), ("was:there", "home/was:there"), ("memory:x", None),
        ("memory://host:19530/x", None), ("s3+x://bucket", None),
    ],
)  # fmt: skip
def test_what_an_address_means(
    address: str | Path, place: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "was:there").mkdir(parents=True)
    assert local_path(address) == (None if place is None else tmp_path / place)


def test_the_local_store_is_the_first_row(installed: None, tmp_path: Path) -> None:
    assert [*STORES] == ["local", "milvus", "memory", "wrong", "gone"]
    family, address = family_of(tmp_path / "x"), f"local:{tmp_path / 'x'}"
    assert type(family) is type(family_of(address)) and not family.exists(address)
    with pytest.raises(IndexMissing):
        open_store(address)
    made = family.create(address, "colours", ColourEncoder().spec)
    made.upsert([NewDocument("a.jpg", "image", b"a")], ColourEncoder().encode_texts(["red"]))
    with Index.open(address) as index:
        assert index.path == tmp_path / "x" and index.place == str(tmp_path / "x")
    found = open_store(tmp_path / "x")
    assert isinstance(found, LocalStore) and (found.count(), found.metadata["name"]) == (1, "colours")
    assert family.exists(address)


def test_a_scheme_that_nobody_knows_is_one_sentence(installed: None) -> None:
    known = "local, milvus, memory, wrong, gone"
    sentence = rf'there is no store "oracle" for oracle://host/x: the known ones are {known}; install'
    with pytest.raises(UsageError, match=sentence):
        Index.open("oracle://host/x")
    for word, reason in (("wrong", "is of the type dict; expected a StoreFamily"), ("gone", "cannot be loaded")):
        with pytest.raises(UsageError, match=reason):
            open_store(f"{word}:x")
    done = run_program("query", "red", "--store", "oracle://host/x", code=2)
    assert done.stderr.count("\n") == 1 and 'no store "oracle"' in done.stderr
    assert "no index at memory:none" in run_program("query", "red", "--store", "memory:none", code=2).stderr


def test_a_store_of_others_from_python(filled: str, photos: Path) -> None:
    with Index.open(filled) as index:
        assert isinstance(index.encoder(), Colours), "opened by the name that the store keeps"
        assert [Path(hit.path).stem for hit in index.search("red", k=1)] == ["red"]
        [one, other] = index.search_many(["blue", "orange -red"], k=1)
        assert (Path(one[0].path).stem, Path(other[0].path).stem) == ("blue", "orange")
        assert Path(index.search(image=photos / "sub" / "red.png", k=1)[0].path).stem == "red"
        assert index.search(vector=index.encoder().encode_texts(["white"])[0], k=1)[0].path.endswith("white.png")
        assert index.modality_of(photos / "green.png") == "image"
        assert index.explain("green", photos / "green.png").heat is not None
        assert index.evaluate().figures["hit@1"]["estimate"] == 1.0
        status = index.status()
        assert (status["documents"]["image"], status["documents"]["segments"], status["path"]) == (8, 8, "memory")
        assert (index.verify().documents, index.verify().differences) == (8, ())
        with pytest.raises(UsageError, match="memory is no index directory, which this needs"):
            index.optimize()
        with pytest.raises(UsageError, match="no index directory"):
            _ = index.path
    with pytest.raises(UsageError, match="was closed"):
        index.search("red")
    with pytest.raises(EncoderMismatch, match="the index memory was made with"):
        Index.open(filled, encoder=ColourEncoder("others"))


def test_a_store_object_and_what_is_committed_to_it(installed: None) -> None:
    encoder = Colours()
    store = MemoryStore(encoder.spec)
    with Index.open(store, encoder=encoder) as index:
        assert index.search("red") == []
        store.upsert([NewDocument("red.jpg", "image", b"1")], encoder.encode_texts(["red"]))
        assert [hit.path for hit in index.search("red")] == ["red.jpg"], "what was committed meanwhile is found"


def test_a_store_of_others_from_the_command_line(filled: str, tmp_path: Path, photos: Path) -> None:
    for words in (["--store", filled], ["--index", filled]):
        done = run_program("query", "red", "-k", "1", "--json", *words)
        assert Path(json.loads(done.stdout)["path"]).stem == "red"
    assert "red.png" in run_program("query", "red", "-k", "1", MMSEARCH_STORE=filled).stdout
    assert run_program("query", "red type:video", "--store", filled, code=1).stdout == ""
    assert "8 images" in run_program("status", "--store", filled).stdout
    assert json.loads(run_program("status", "--store", filled, "--json").stdout)["bytes"] is None
    assert "similarity" in run_program("explain", "green", photos / "green.png", "--store", filled).stdout
    assert "hit@1" in run_program("eval", "--sidecars", "--store", filled).stdout
    assert "8 documents" in run_program("verify", "--store", filled).stdout
    refused = {"cannot be filled from folders": ["index", photos], "no index directory": ["optimize"],
               "no index directory, which": ["backup", tmp_path / "copy"], "one encoder alone": ["switch", "builtin"],
               "cannot remove single documents": ["remove", photos]}  # fmt: skip
    for reason, command in refused.items():
        done = run_program(*command, "--store", filled, code=2)
        assert done.stderr.count("\n") == 1 and reason in done.stderr, command
    assert "memory:new" not in Memory.stores
    run_program("index", photos, "--store", "memory:new", code=2)
    assert "memory:new" not in Memory.stores, "nothing is made where nothing can be filled"


def test_embeddings_are_imported_into_a_store_of_others(installed: None, tmp_path: Path) -> None:
    encoder = Colours()
    (tmp_path / "parts" / "img_emb").mkdir(parents=True)
    np.save(tmp_path / "parts" / "img_emb" / "img_emb_0.npy", encoder.encode_texts(["red", "blue"]).astype(np.float16))
    (tmp_path / "parts" / "metadata").mkdir()
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"image_path": ["https://x.org/red.jpg", "https://x.org/blue.jpg"], "caption": ["r", "b"]})
    parquet.write_table(table, tmp_path / "parts" / "metadata" / "metadata_0.parquet")
    words = ["import", tmp_path / "parts", "--model", f"{HERE}:Colours", "--store", "memory:parts"]
    assert "memory" in run_program(*words).stdout
    done = run_program("query", "blue", "-k", "1", "--paths", "--store", "memory:parts")
    assert done.stdout == "https://x.org/blue.jpg\n"
