"""Finds recipes and reads their TOML: every key checked, every mistake named with its place."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar

from mmsearch.core.errors import RecipeError
from mmsearch.store.local.recipes.base import KINDS, PARAMETERS, Measured, Parameter, Recipe, Training

Made = TypeVar("Made")
_EXPECTED = {
    "str": "a text",
    "Kind": f"one of {', '.join(KINDS)}",
    "bool": "true or false",
    "int": "a whole number of at least {}",
    "int | None": "a whole number of at least {}",
    "float": "a number of at least {}",
    "tuple[int, ...]": "a list of whole numbers",
    "tuple[Measured, ...]": "an array of tables",
}
"""By the annotation of a field, what may stand in a file; the braces are its least value."""


def recipe_folder() -> Path:
    """Where the project's own recipes lie: beside the package in a source tree, inside it in a wheel."""
    package = Path(__file__).resolve().parents[3]
    for folder in (package / "recipe_files", package.parent / "indexes"):
        if (folder / "exact.toml").is_file():
            return folder
    raise RecipeError(f"no recipes beside {package}; the installation is incomplete, install mmsearch again")


def list_recipes() -> list[Recipe]:
    """The project's own recipes, by name."""
    return [load_recipe(path) for path in sorted(recipe_folder().glob("*.toml"))]


def load_recipe(name_or_path: str | Path) -> Recipe:
    """The recipe called ``name_or_path``, or the one in that file (a path, or anything ending in ``.toml``).

    Raises `RecipeError` where there is none, or where its file does not say what a recipe must say.
    """
    text = str(name_or_path)
    path = Path(name_or_path)
    if not isinstance(name_or_path, Path) and not text.endswith(".toml") and path.name == text:
        path = recipe_folder() / f"{text}.toml"
        if not path.is_file():
            known = ", ".join(p.stem for p in sorted(recipe_folder().glob("*.toml")))
            raise RecipeError(f"no recipe is called {text!r}; there are {known}, or give a .toml file")
    return parse_recipe(_read(path), str(path))


def parse_recipe(table: Mapping[str, Any], where: str) -> Recipe:
    """The recipe that ``table`` (read TOML) describes; ``where`` names its source in errors."""
    recipe = _made(Recipe, table, where)
    if recipe.max_vectors is not None and recipe.max_vectors < recipe.min_vectors:
        raise RecipeError(f"{where}: `max_vectors` {recipe.max_vectors} is below `min_vectors` {recipe.min_vectors}")
    if ("{lists}" in recipe.factory) != (recipe.training.lists_per_root > 0):
        raise RecipeError(
            f"{where}: `factory` is {recipe.factory!r} and `training.lists_per_root` "
            f"{recipe.training.lists_per_root:g}; {{lists}} and a number above 0 go together"
        )
    return recipe


def _made(kind: type[Made], table: Any, where: str, **given: Any) -> Made:
    """An object of a class of `recipes.base` from a table that has its fields; what it does not know is a typo."""
    table = _table(table, where)
    wanted = {each.name: each for each in fields(kind) if each.name not in given}  # type: ignore[arg-type]
    if unknown := ", ".join(sorted(table.keys() - wanted.keys())):
        raise RecipeError(f"{where}: {unknown} is not known here; known are {', '.join(wanted)}")
    for name, each in wanted.items():
        if name in table:
            given[name] = _value(each, table[name], where)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise RecipeError(f"{where}: `{name}` is missing")
    return kind(**given)


def _value(each: Field[Any], value: Any, where: str) -> Any:
    """What a field becomes of a value; its annotation says what may stand there."""
    is_whole, least = isinstance(value, int) and not isinstance(value, bool), each.metadata.get("least", 0)
    match each.type:
        case "str" if isinstance(value, str) and value.strip():
            return value
        case "Kind" if value in KINDS:
            return value
        case "bool" if isinstance(value, bool):
            return value
        case "int" | "int | None" if is_whole and value >= least:
            return value
        case "float" if (is_whole or isinstance(value, float)) and least <= value < math.inf:
            return float(value)
        case "tuple[int, ...]" if isinstance(value, list) and all(type(one) is int for one in value):
            return tuple(value)
        case "Mapping[str, int]":
            return {name: _whole(name, one, where) for name, one in _table(value, where).items()}
        case "Training":
            return _training(value, f"{where}, [training]")
        case "tuple[Parameter, ...]":
            return tuple(_parameter(name, one, where) for name, one in _table(value, where).items())
        case "tuple[Measured, ...]" if isinstance(value, list):
            return tuple(_made(Measured, one, f"{where}, [[measured]]") for one in value)
    expected = _EXPECTED[str(each.type)].format(least)
    raise RecipeError(f"{where}: `{each.name}` is {value!r}; {expected} is expected")


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where}: a table is expected, not {value!r}")
    return value


def _whole(name: str, value: Any, where: str) -> int:
    if type(value) is not int or value < 0:
        raise RecipeError(f"{where}: `{name}` is {value!r}; {_EXPECTED['int'].format(0)} is expected")
    return value


def _training(table: Any, where: str) -> Training:
    training = _made(Training, table, where)
    if training.text_share > 1:
        raise RecipeError(f"{where}: `text_share` is {training.text_share}; it lies between 0 and 1")
    return training


def _parameter(name: str, table: Any, where: str) -> Parameter:
    where = f"{where}, [parameters.{name}]"
    if name not in PARAMETERS:
        raise RecipeError(f"{where}: no such search parameter; there are {', '.join(sorted(PARAMETERS))}")
    made = _made(Parameter, table, where, name=name)
    if not made.grid or list(made.grid) != sorted(set(made.grid)):
        raise RecipeError(f"{where}: `grid` is {list(made.grid)}; values in ascending order are expected")
    for value in (made.default, *made.grid):
        if not made.low <= value <= made.high:
            raise RecipeError(f"{where}: {value} lies outside `low` {made.low} and `high` {made.high}")
    return made


def _read(path: Path) -> Mapping[str, Any]:
    # The same reader under two names: tomllib came into the standard library with Python 3.11. Imported here,
    # because a query on an exact index reads no recipe.
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table: Mapping[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except ValueError as error:  # both TOMLDecodeError and UnicodeDecodeError are
        raise RecipeError(f"{path} is not TOML: {error}") from error
    return table
