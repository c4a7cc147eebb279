"""Fixtures that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from mmsearch.api import Index
from tests.support.colours import COLOURS, ColourEncoder, save_colour

# Tests of downloads talk to a hub of their own on this machine; the variable is read when its library is imported.
os.environ.pop("HF_HUB_OFFLINE", None)
settings.register_profile("mmsearch", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("mmsearch")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the cache of whoever runs it, or reads what lies there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MMSEARCH_CONFIG", "")  # nor do defaults of theirs count
        yield


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Milvus 2.3.5 server."""
    from tests.support.milvus_server import MilvusServer, NoServerError

    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    try:
        server.start()
    except NoServerError as error:
        pytest.skip(str(error))
    yield server.address
    server.stop()


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """One photo of each colour in a folder with a subfolder."""
    for number, colour in enumerate(COLOURS):
        folder = tmp_path / "photos" / ("" if number % 2 else "sub")
        save_colour(folder / f"{colour}.png", colour, seed=number)
    return tmp_path / "photos"


@pytest.fixture
def index(tmp_path: Path, encoder: ColourEncoder) -> Index:
    with Index.open(tmp_path / "index", create=True, encoder=encoder) as opened:
        yield opened


@pytest.fixture
def data() -> Path:
    """The folder of real data, for tests that measure on it."""
    folder = os.environ.get("MMSEARCH_TEST_DATA")
    if not folder or not (Path(folder) / "photos" / "labels.jsonl").exists():
        pytest.skip("needs real photos: set MMSEARCH_TEST_DATA to a folder with photos/labels.jsonl")
    return Path(folder)
