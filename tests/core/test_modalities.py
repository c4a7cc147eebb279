"""What the descriptions of modalities say, also of one that nobody describes."""

from __future__ import annotations

import pytest

from mmsearch.core.errors import UsageError
from mmsearch.core.modalities import (
    MODALITIES,
    ModalitySpec,
    check_names,
    group_of,
    has_pictures,
    is_passages,
    names_in,
    names_with_pictures,
    spec_of,
)


def test_mmsearch_s_own() -> None:
    assert MODALITIES.own == ("image", "video", "text", "sound", "speech", "audio")
    assert names_in("visual") == names_with_pictures() == ("image", "video")
    assert names_in("text") == ("text", "sound", "speech", "audio")
    assert [spec_of(name).is_sampled for name in MODALITIES.own] == [False, True, False, False, False, False]
    assert is_passages(("text",)) and not is_passages(("text", "image")) and not is_passages(None)
    check_names(MODALITIES.own)


def test_one_that_nobody_describes_is_taken_for_text() -> None:
    present = {"image", "smell"}
    assert (group_of("smell"), has_pictures("smell"), spec_of("smell").is_sampled) == ("text", False, False)
    assert names_in("text", present) == ("text", "sound", "speech", "audio", "smell")
    assert names_in("visual", present) == ("image", "video")
    with pytest.raises(UsageError, match="no such modality: smell; there are image, video, text"):
        check_names(["text", "smell"])


def test_a_described_one_is_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODALITIES, "_rows", dict(MODALITIES._rows))
    monkeypatch.setattr(MODALITIES, "_loaded", {})
    MODALITIES.add("sketch", ModalitySpec("sketch", "sketches", "visual", has_pictures=True))
    assert names_in("visual") == names_with_pictures() == ("image", "video", "sketch")
    check_names(["sketch"])


@pytest.mark.parametrize("name", ["", "Sound", "so und", "x'; DROP"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(UsageError, match="lower case letters"):
        ModalitySpec(name, "x")
