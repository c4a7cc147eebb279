"""Requests made from the schema that the server gives of itself: none may be a fault of the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mmsearch.api import Index
from tests.support.colours import COLOURS, ColourEncoder, save_colour
from tests.support.sound import save_video

pytest.importorskip("schemathesis")

from tests.support.schema_cases import ask_cases

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("schema")
    for number, name in enumerate(COLOURS):
        save_colour(folder / "files" / f"{name}.png", name, (40, 30), seed=number)
    save_video(folder / "files" / "film.mp4", ["red", "blue"])
    (folder / "files" / "about.txt").write_text("Everything is red here.")
    with Index.open(folder / "index", create=True, encoder=ColourEncoder()) as made:
        made.add(folder / "files")
        yield made


def test_no_request_of_the_schema_is_a_fault(index: Index) -> None:
    """By and against the schema, with paths of the index among them: answered or refused, as the schema says."""
    asked = ask_cases(index, 10)
    assert asked >= 250
