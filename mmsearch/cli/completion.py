"""What a shell offers where the user presses Tab: names that lie on this machine, words that an option takes.

Called while somebody waits, so nothing heavy is imported, and where nothing can be offered, nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from mmsearch.core.options import OptionField

Complete = Callable[[str], list[str]]


def _beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def index_names(incomplete: str) -> list[str]:
    """The indexes of the data directory."""
    from mmsearch.core.home import home

    try:
        return _beginning(incomplete, sorted(path.parent.name for path in home().glob("*/manifest.json")))
    except OSError:
        return []


def model_names(incomplete: str) -> list[str]:
    """The recommended models."""
    from mmsearch.models.encoders.catalogue import list_models

    return _beginning(incomplete, [row.name for row in list_models()])


def recipe_names(incomplete: str) -> list[str]:
    """The recipes of vector search, and what stands for the best of them."""
    package = Path(__file__).parents[1]  # the places of store.local.recipes, whose import takes a while
    for folder in (
        package / "recipe_files",
        package.parent / "indexes",
    ):
        if folder.is_dir():
            return _beginning(incomplete, ["auto", *sorted(path.stem for path in folder.glob("*.toml"))])
    return []


def modality_names(incomplete: str) -> list[str]:
    """The kinds of documents."""
    from mmsearch.core.modalities import MODALITIES

    return _beginning(incomplete, MODALITIES.names())


def speech_model_names(incomplete: str) -> list[str]:
    """Models that recognise speech."""
    from mmsearch.models.speech.registry import SPEECH_MODELS

    return _beginning(incomplete, SPEECH_MODELS)


def reranker_names(incomplete: str) -> list[str]:
    """The reranker that ships; others have any name."""
    return _beginning(incomplete, ["builtin"])


def queries(incomplete: str) -> list[str]:
    """How the query that is being typed could go on: the keys of filters, and their values where these are few."""
    from mmsearch.query.language import complete

    return complete(incomplete)


_BY_FIELD: dict[str, Complete] = {"recipe": recipe_names, "modalities": modality_names, "reranker": reranker_names}


def completion_of(each: OptionField) -> Complete | None:
    """What completes the value of an option: its choices, or names of its own kind."""
    if each.choices:
        return lambda incomplete: _beginning(incomplete, each.choices)
    return _BY_FIELD.get(each.name)
