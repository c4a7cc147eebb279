"""The command that explains: `help`, `help COMMAND`, and the query language with all its filters."""

from __future__ import annotations

import shutil
import textwrap
from typing import Annotated, Any

import typer

from mmsearch.core.errors import UsageError

WORDS = (
    ("mountain lake", "what to look for; any words, in many languages"),
    ('"two words"', "these words exactly: in a name, caption or text, or said"),
    ("-word", "without what shows this; also -\"two words\""),
    ("filter:value", "only what the filter allows; several must all hold"),
    ("-filter:value", "only what it does not allow"),
    ("\\", 'before one of " \\ : - * ? , makes it an ordinary character'),
)  # fmt: skip
"""The query language but for its filters: how it is written, and what it means."""
WITH_QUERIES = ("query", "explain", "export")
"""Commands that take a query."""


def _names(context: typer.Context, incomplete: str) -> list[str]:
    names = [*context.find_root().command.commands, "filters"]  # type: ignore[attr-defined]
    return [name for name in names if name.startswith(incomplete)]


def help_command(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(help="A command, or `filters`; without one, all commands.", autocompletion=_names),
    ] = None,
) -> None:
    """Explains a command; of `query`, also the query language with all its filters."""
    words = list(command or [])
    if words == ["filters"]:
        print(language_help(_width()))
        return
    shown, root = context.find_root(), context.find_root().command
    found: Any = root
    for number, word in enumerate(words):
        if not hasattr(found, "commands"):
            raise UsageError(f"`mmsearch {' '.join(words[:number])}` has no command {word}")
        _, found, _ = found.resolve_command(shown, [word])
        shown = typer.Context(found, info_name=word, parent=shown)
    print(found.get_help(shown))
    if words and words[0] in WITH_QUERIES:
        print(f"\n{language_help(_width())}")


def language_help(width: int) -> str:
    """The query language, as a table that is so wide at most."""
    from mmsearch.filters import filter_help

    filters = [(example, meaning) for _, example, meaning in filter_help()]
    return f"The query language:\n{_table(WORDS, width)}\n\nFilters:\n{_table(filters, width)}"


def _table(rows: Any, width: int) -> str:
    left = 2 + max(len(shown) for shown, _ in rows)
    right = max(width - left - 2, 20)
    lines = []
    for shown, meaning in rows:
        first, *others = textwrap.wrap(meaning, right) or [""]
        lines += [f"  {shown:{left}}{first}".rstrip(), *(f"  {'':{left}}{line}" for line in others)]
    return "\n".join(lines)


def _width() -> int:
    return min(shutil.get_terminal_size((80, 24)).columns, 100)


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("help", short_help="Explain a command, or the filters of a query")(help_command)
