"""One field of options is what the command line, HTTP and Python take: shown with options of the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams
from typer.testing import CliRunner

from mmsearch.cli.options import with_options
from mmsearch.core.errors import UsageError
from mmsearch.core.options import Options, from_keywords, option, option_fields
from mmsearch.query.options import SearchOptions
from mmsearch.server.parameters import Limit, model_of, options_from, read


@dataclass(frozen=True)
class Fruit(Options):
    """One field of each kind."""

    count: int = option(3, "How many.", flag="-n", least=1, most=9)
    weight: float | None = option(None, "Of one.", flag="--weight", above=0, old="mass", replaces="colour_above")
    kind: Literal["apple", "pear"] = option("apple", "Which.", flag="--kind")
    names: tuple[str, ...] | None = option(None, "Called so; repeatable.", flag="--name", keyword="name")
    peeled: bool = option(False, "With the peel.", flag="--with-peel", shown=True)
    washed: bool = option(False, "Washed.", flag="--washed")
    cut: bool = option(True, "Cut, or not.", flag="--cut/--no-cut")
    colour_above: float | None = option(None, "Any colour.", flag="--any-colour", shown=0.5, switch=None)
    knife: str | None = option(None, "Cut by this.", flag="--knife", metavar="[NAME]", switch="small")
    secret: float = option(2.0, "Not for the command line.", least=0)


def from_command_line(*words: str) -> tuple[Any, str]:
    made: list[Fruit] = []

    def command(text: str = "", *, fruit: Fruit) -> None:
        made.append(fruit)

    app = typer.Typer()
    app.command()(with_options()(command))
    result = CliRunner().invoke(app, list(words))
    if result.exit_code:
        return result.exception, result.output
    return made[0] if made else None, result.output


def from_address(query: str, **limits: Limit) -> tuple[Fruit, list[str]]:
    notes: list[str] = []
    asked = read(model_of(Fruit, limits, "Asked"), QueryParams(query).multi_items())
    return options_from(Fruit, asked, limits, notes.append), notes


PEOPLE = Fruit(peeled=True, colour_above=0.5)
"""What command line and HTTP make of nothing."""


@pytest.mark.parametrize(
    ("words", "query", "keywords", "expected"),
    [
        ([], "", {"peeled": True, "colour_above": 0.5}, PEOPLE),
        (
            ["-n", "4"],
            "n=4",
            {"count": 4, "peeled": True, "colour_above": 0.5},
            Fruit(4, peeled=True, colour_above=0.5),
        ),
        (["--weight", "0.2"], "weight=0.2", {"weight": 0.2, "peeled": True}, Fruit(weight=0.2, peeled=True)),
        (["--kind", "pear"], "kind=pear", {"kind": "pear", "peeled": True, "colour_above": 0.5}, None),
        (
            ["--name", "a", "--name", "b"],
            "name=a&name=b",
            {"name": ["a", "b"], "peeled": True, "colour_above": 0.5},
            None,
        ),
        (["--with-peel"], "with_peel=1", {"peeled": False, "colour_above": 0.5}, Fruit(colour_above=0.5)),
        (["--washed"], "washed=1", {"washed": True, "peeled": True, "colour_above": 0.5}, None),
        (["--any-colour"], "any_colour=1", {"peeled": True}, Fruit(peeled=True)),
    ],
)
def test_every_surface_makes_the_same(
    words: list[str], query: str, keywords: dict[str, Any], expected: Fruit | None
) -> None:
    made, _ = from_command_line(*words)
    assert made == from_address(query)[0] == from_keywords(Fruit, keywords)
    assert expected is None or made == expected


def test_what_differs_by_surface() -> None:
    assert from_command_line("--no-cut")[0].cut is False and from_command_line("--cut")[0].cut is True
    assert from_command_line("--knife", "long")[0].knife == "long"
    assert from_address("knife=1")[0].knife == "small" and from_address("knife=0")[0].knife is None
    assert from_keywords(Fruit, {"secret": 1.0}, Fruit(7)) == Fruit(7, secret=1.0)
    help_text = from_command_line("--help")[1]
    assert "secret" not in help_text and "mass" not in help_text and "How many." in help_text
    limits = {"count": Limit(2, 4)}
    assert from_address("", **limits)[0].count == 2 and from_address("n=4", **limits)[0].count == 4
    with pytest.raises(UsageError, match="from 1 to 4"):
        from_address("n=5", **limits)


def test_an_old_name_works_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    made, output = from_command_line("--mass", "0.3")
    assert made.weight == 0.3 and "--mass is called --weight now" in output
    made, notes = from_address("mass=0.3")
    assert made.weight == 0.3 and notes == ["mass is called weight now"]
    with pytest.warns(DeprecationWarning, match="mass is called weight now"):
        assert from_keywords(Fruit, {"mass": 0.3}).weight == 0.3


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"count": 0}, "count must be between 1 and 9, got 0"),
        ({"count": 2.5}, "count must be a whole number, got 2.5"),
        ({"count": "4"}, "count must be a whole number, got '4'"),
        ({"weight": 0}, "weight must be above 0"),
        ({"weight": "x"}, "weight must be a number"),
        ({"weight": float("nan")}, "weight must be above 0"),
        ({"kind": "plum"}, "no such kind: plum; there are apple and pear"),
        ({"secret": -1}, "secret must be at least 0"),
        ({"weigth": 1}, "did you mean weight?"),
    ],
)
def test_wrong_values_are_errors_that_name_them(keywords: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_keywords(Fruit, keywords)
    assert says in str(caught.value)


@given(st.dictionaries(st.sampled_from([each.keyword for each in option_fields(SearchOptions)]), st.none() | st.text()
                       | st.floats() | st.integers() | st.booleans() | st.lists(st.text(), max_size=2)))  # fmt: skip
def test_whatever_python_gives_is_options_or_an_error(keywords: dict[str, Any]) -> None:
    try:
        made = from_keywords(SearchOptions, keywords)
    except UsageError:
        return
    assert isinstance(made, SearchOptions)
    assert all(each.option.help for each in option_fields(SearchOptions))


def test_search_options_of_a_surface() -> None:
    def options_of(query: str) -> SearchOptions:
        asked = read(model_of(SearchOptions, {}, "Asked"), QueryParams(query).multi_items())
        return options_from(SearchOptions, asked, {}, lambda _: None)

    made = options_of("k=5&modality=text&rerank=1&min_score=0.2")
    assert made == SearchOptions(5, ("text",), 0.2, collapse=True, reranker="builtin")
    assert options_of("strict=1") == SearchOptions(strict=True, collapse=True)
