"""Which words of a command line are the question and which are options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from mmsearch.cli import app
from mmsearch.cli.completion import index_names, model_names
from mmsearch.core.errors import UsageError

REFUSED = (UsageError, typer.BadParameter.__mro__[1])
"""Ours, and what typer raises for wrong words of all kinds."""


GROUP: Any = get_command(app)


def parsed(*words: str, command: str = "query") -> dict[str, Any]:
    params: dict[str, Any] = GROUP.commands[command].make_context(command, list(words)).params
    return params


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-cat dog"], ["-cat dog"]),
        (["-cat", "mountain lake"], ["-cat", "mountain lake"]),
        (["mountain lake", "-cat"], ["mountain lake", "-cat"]),
        (["-kitchen", "house"], ["-kitchen", "house"]),
        (["-type:video", "sea"], ["-type:video", "sea"]),
        (["-007", "bond"], ["-007", "bond"]),
        (['-"old town"', "lake"], ['-"old town"', "lake"]),
        (["--", "-cat", "-k", "2"], ["-cat", "-k", "2"]),
        (["-cat", "--", "--json"], ["-cat", "--json"]),
        (["\ue000x", "--", "\ue000y"], ["\ue000x", "\ue000y"]),
    ],
)
def test_words_with_a_dash_are_words(words: list[str], text: list[str]) -> None:
    assert parsed(*words)["text"] == text


def test_options_stay_options_wherever_they_stand() -> None:
    found = parsed("-cat", "-k", "3", "dog", "-0", "--json", "--min-relevance", "0.2", "--rerank", "-sea")
    assert (found["text"], found["k"], found["null"], found["json_"]) == (["-cat", "dog", "-sea"], 3, True, True)
    assert (found["min_relevance"], found["reranker"]) == (0.2, "builtin")
    assert parsed("dog", "-k5")["k"] == 5 and parsed("dog", "-0k5")["k"] == 5
    assert parsed("dog", "--image", "-cat.jpg")["image"] == [Path("-cat.jpg")], "the value of an option"
    assert parsed("dog", "--index", "-here")["index"] == "-here"


@pytest.mark.parametrize("wrong", ["--jsn", "--cat", "-x", "-json", "-all", "-no-collapse", "--min-scor=3"])
def test_mistyped_options_are_errors(wrong: str) -> None:
    with pytest.raises(REFUSED) as caught:
        parsed("dog", wrong)
    if wrong in ("-json", "-all"):
        assert f"did you mean -{wrong}?" in str(caught.value)


def test_the_question_of_explain_too() -> None:
    found = parsed("-cat dog", "photo.jpg", command="explain")
    assert (found["text"], found["path"]) == ("-cat dog", Path("photo.jpg"))
    assert parsed("-cat", "-odd.jpg", command="explain")["path"] == Path("-odd.jpg")


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_what_is_read_is_what_was_given_or_an_error(words: list[str]) -> None:
    try:
        text = parsed(*words)["text"]
    except REFUSED:
        assert any(word.startswith("-") for word in words)
        return
    if not any(word.startswith("-") for word in words):
        assert text == words
    assert all(word in words for word in text)


def test_names_of_indexes_models_and_recipes_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path))
    for name in ("photos", "paintings", "videos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    assert index_names("p") == ["paintings", "photos"] and model_names("builtin")[0] == "builtin"
