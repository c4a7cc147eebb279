"""How the words of a question stand among options: ``-cat`` leaves cats out, ``--rerank`` may have a name or none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from mmsearch.core.errors import UsageError

_SHORT_OPTIONS = re.compile("-0?(k[0-9]*)?")
"""``-0``, ``-k``, ``-k5`` and both in one: whatever else has one dash and more than a letter is a word."""
_KEPT = "\ue000"
"""Stands before a word that looks like an option, while click reads; a character that Unicode gives no meaning."""


class QueryCommand(TyperCommand):
    """`query` and `explain`. ``-word`` is a word to leave out, not an option; ``--rerank`` may stand without a name:
    what follows it is one only if it can be.

    An argument is a word of the question if it has one dash and then more than one character, unless it is made of the
    options ``-k`` and ``-0``, or is the value of the option before it. What is a long option but for its second dash
    (``-json``) is an error, and so is an unknown one with two.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        if "--rerank" in args:  # seldom, and it costs an import
            args = _with_reranker(args)
        rest = super().parse_args(ctx, self._with_words(args))
        for one in self.params:
            if one.param_type_name == "argument" and one.name is not None:
                ctx.params[one.name] = _as_given(ctx.params[one.name])
        return rest

    def _with_words(self, args: list[str]) -> list[str]:
        options = [one for one in self.params if one.param_type_name == "option"]
        names = {name for one in options for name in (*one.opts, *one.secondary_opts)}
        taking = {name for one in options if not getattr(one, "is_flag", False) for name in one.opts}
        given: list[str] = []
        for place, word in enumerate(args):
            if word == "--":
                return [*given, *(_KEPT + one if one.startswith(_KEPT) else one for one in args[place:])]
            is_value = place > 0 and args[place - 1] in taking
            if word.startswith(_KEPT) and not is_value:
                word = _KEPT + word
            if is_value or len(word) < 3 or word[0] != "-" or word[1] == "-" or _SHORT_OPTIONS.fullmatch(word):
                given.append(word)
                continue
            if f"-{word}" in names:
                raise UsageError(
                    f"there is no option {word}: did you mean -{word}? To leave out the word, put it in quotes of its "
                    f"own: '-\"{word[1:]}\"'"
                )
            given.append(_KEPT + word)
        return given


def _with_reranker(args: list[str]) -> list[str]:
    from mmsearch.models.rerankers.registry import looks_like_a_name

    given: list[str] = []
    for place, word in enumerate(args):
        following = args[place + 1] if place + 1 < len(args) else ""
        if word == "--":
            return [*given, *args[place:]]
        given.append("--rerank=builtin" if word == "--rerank" and not looks_like_a_name(following) else word)
    return given


def _as_given(value: Any) -> Any:
    if isinstance(value, str):
        return value.removeprefix(_KEPT)
    if isinstance(value, Path):
        return Path(str(value).removeprefix(_KEPT))
    if isinstance(value, (list, tuple)):
        return type(value)(_as_given(one) for one in value)
    return value
