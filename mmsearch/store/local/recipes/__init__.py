"""Recipes: named ways to build a vector index, one TOML file each.

    base      what a recipe says
    reader    finds recipes and reads their TOML
    choosing  which of them `auto` means

The project's own recipes lie in ``indexes/`` of a source tree and in ``mmsearch/recipe_files/`` of an
installed wheel; a user may pass a file of their own.
"""

from mmsearch.store.local.recipes.base import Measured, Parameter, Recipe, Training
from mmsearch.store.local.recipes.choosing import choose
from mmsearch.store.local.recipes.reader import list_recipes, load_recipe, parse_recipe, recipe_folder

__all__ = [
    "Measured",
    "Parameter",
    "Recipe",
    "Training",
    "choose",
    "list_recipes",
    "load_recipe",
    "parse_recipe",
    "recipe_folder",
]
