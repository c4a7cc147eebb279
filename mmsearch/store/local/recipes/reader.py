"""Finds recipes and reads their TOML: every key checked, every mistake named with its place."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsearch.core.errors import RecipeError
from mmsearch.store.local.recipes.base import KINDS, PARAMETERS, Measured, Parameter, Recipe, Training


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
    reader = _Reader(table, where)
    kind = reader.text("kind")
    if kind not in KINDS:
        raise RecipeError(f"{where}: `kind` is {kind!r}; it is one of {', '.join(KINDS)}")
    recipe = Recipe(
        name=reader.text("name"),
        description=reader.text("description"),
        kind=kind,
        factory=reader.text("factory"),
        min_vectors=reader.number("min_vectors", int, 0),
        max_vectors=reader.number("max_vectors", int, None),
        rescore=reader.flag("rescore"),
        needs_gpu=reader.flag("needs_gpu"),
        training=_training(reader.table("training"), where),
        parameters=tuple(_parameter(n, t, where) for n, t in reader.tables("parameters")),
        measured=tuple(_measured(t, where) for t in reader.array("measured")),
    )
    reader.finish()
    _check_whole(recipe, where)
    return recipe


def _check_whole(recipe: Recipe, where: str) -> None:
    if recipe.max_vectors is not None and recipe.max_vectors < recipe.min_vectors:
        raise RecipeError(f"{where}: `max_vectors` {recipe.max_vectors} is below `min_vectors` {recipe.min_vectors}")
    if ("{lists}" in recipe.factory) != (recipe.training.lists_per_root > 0):
        raise RecipeError(
            f"{where}: `factory` is {recipe.factory!r} and `training.lists_per_root` "
            f"{recipe.training.lists_per_root:g}; {{lists}} and a number above 0 go together"
        )


def _training(table: Mapping[str, Any], where: str) -> Training:
    reader = _Reader(table, f"{where}, [training]")
    plain = Training()
    training = Training(
        lists_per_root=reader.number("lists_per_root", float, plain.lists_per_root),
        max_lists=reader.number("max_lists", int, plain.max_lists),
        points_per_list=reader.number("points_per_list", int, plain.points_per_list, low=39),
        vectors=reader.number("vectors", int, plain.vectors, low=1),
        text_share=reader.number("text_share", float, plain.text_share),
    )
    reader.finish()
    if training.text_share > 1:
        raise RecipeError(f"{where}, [training]: `text_share` is {training.text_share}; it lies between 0 and 1")
    return training


def _parameter(name: str, table: Mapping[str, Any], where: str) -> Parameter:
    where = f"{where}, [parameters.{name}]"
    if name not in PARAMETERS:
        raise RecipeError(f"{where}: no such search parameter; there are {_names(PARAMETERS)}")
    reader = _Reader(table, where)
    low = reader.number("low", int, 1, low=1)
    high = reader.number("high", int)
    default = reader.number("default", int)
    grid = reader.integers("grid")
    reader.finish()
    if not grid or list(grid) != sorted(set(grid)):
        raise RecipeError(f"{where}: `grid` is {list(grid)}; values in ascending order are expected")
    for value in (default, *grid):
        if not low <= value <= high:
            raise RecipeError(f"{where}: {value} lies outside `low` {low} and `high` {high}")
    return Parameter(name, low, high, default, grid)


def _measured(table: Mapping[str, Any], where: str) -> Measured:
    reader = _Reader(table, f"{where}, [[measured]]")
    measured = Measured(
        vectors=reader.number("vectors", int),
        dim=reader.number("dim", int),
        recall_text=reader.number("recall_text", float),
        recall_image=reader.number("recall_image", float),
        p50_ms=reader.number("p50_ms", float),
        build_s=reader.number("build_s", float),
        bytes_per_vector=reader.number("bytes_per_vector", float),
        source=reader.text("source"),
        parameters=_whole_numbers(reader.table("parameters"), f"{where}, [[measured]]"),
    )
    reader.finish()
    return measured


def _whole_numbers(table: Mapping[str, Any], where: str) -> dict[str, int]:
    reader = _Reader(table, where)
    return {name: reader.number(name, int) for name in table}


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


def _names(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names))


class _Required:
    """Stands for "there is no default"."""


_REQUIRED = _Required()


class _Reader:
    """Takes checked values out of one TOML table; `finish` refuses what nobody asked for (a typo, mostly)."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        if not isinstance(table, Mapping):
            raise RecipeError(f"{where}: a table is expected, not {table!r}")
        self._left = dict(table)
        self._where = where
        self._known: list[str] = []

    def _take(self, key: str, default: Any = _REQUIRED) -> Any:
        self._known.append(key)
        if key not in self._left and default is _REQUIRED:
            raise RecipeError(f"{self._where}: `{key}` is missing")
        return self._left.pop(key, default)

    def _wrong(self, key: str, value: object, expected: str) -> RecipeError:
        return RecipeError(f"{self._where}: `{key}` is {value!r}; {expected} is expected")

    def text(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(key, value, "a text")
        return value

    def flag(self, key: str) -> bool:
        value = self._take(key, False)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def number(self, key: str, kind: type, default: Any = _REQUIRED, *, low: float = 0) -> Any:
        value = self._take(key, default)
        if value is default:
            return value
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (kind is float and isinstance(value, float))) or not low <= value < math.inf:
            raise self._wrong(key, value, f"a {'whole ' if kind is int else ''}number of at least {low:g}")
        return kind(value)

    def integers(self, key: str) -> tuple[int, ...]:
        value = self._take(key)
        if not isinstance(value, list) or not all(isinstance(v, int) and not isinstance(v, bool) for v in value):
            raise self._wrong(key, value, "a list of whole numbers")
        return tuple(value)

    def table(self, key: str) -> Mapping[str, Any]:
        value = self._take(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, value, "a table")
        return value

    def tables(self, key: str) -> list[tuple[str, Mapping[str, Any]]]:
        return list(self.table(key).items())

    def array(self, key: str) -> list[Mapping[str, Any]]:
        value = self._take(key, [])
        if not isinstance(value, list):
            raise self._wrong(key, value, "an array of tables")
        return value

    def finish(self) -> None:
        if self._left:
            raise RecipeError(
                f"{self._where}: {_names(self._left)} is not known here; known are {', '.join(self._known)}"
            )
