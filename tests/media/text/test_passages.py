"""Markdown against the patterns that say what its marks are."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.media.text.passages import _without_emphasis, markdown_to_text


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.sampled_from(["**", "*", "__", "_", "`", "a", " ", "\n", "\t", "b" * 400]), max_size=25).map("".join)
)
def test_emphasis_is_what_the_pattern_finds(text: str) -> None:
    pattern = re.compile(r"(\*\*|__|`)(?=\S)([^\n]{1,500}?)(?<=\S)\1")
    assert _without_emphasis(text) == pattern.sub(r"\2", text)


def test_marks_that_are_never_closed_take_no_longer() -> None:
    """It ends at all, and nothing is lost: what was tried from each mark was the rest of the text."""
    for mark in ("**a ", "__a ", "`", "[", "![", "[a](", "<!--", "# ", "> "):
        assert "end" in markdown_to_text(f"{mark * 20_000}\n\nend")
