"""Recipes: the shipped ones are sound, and every mistake in a file is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsearch.core.errors import RecipeError
from mmsearch.store.local.recipes import list_recipes, load_recipe, parse_recipe, recipe_folder

GOOD = """
name = "mine"
description = "Lists of RaBitQ codes."
kind = "ann"
factory = "IVF{lists},RaBitQ"
min_vectors = 1000
max_vectors = 5000
rescore = true

[training]
lists_per_root = 4
points_per_list = 50

[parameters.nprobe]
high = 64
default = 8
grid = [1, 8, 64]

[[measured]]
vectors = 100_000
dim = 512
recall_text = 0.9
recall_image = 1
p50_ms = 0.5
build_s = 3.5
bytes_per_vector = 80
source = "benchmarks/vector_search.py"
parameters = { nprobe = 8 }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_shipped_recipe_is_sound_and_named_after_its_file() -> None:
    recipes = list_recipes()
    assert "exact" in {r.name for r in recipes}
    assert [r.name for r in recipes] == [p.stem for p in sorted(recipe_folder().glob("*.toml"))]
    for recipe in recipes:
        assert load_recipe(recipe.name) == recipe
        assert recipe.check_parameters(None) == recipe.defaults()


def test_exact_builds_nothing_and_has_no_limit() -> None:
    exact = load_recipe("exact")
    assert (exact.kind, exact.needs_gpu, exact.parameters) == ("exact", False, ())
    assert (exact.min_vectors, exact.max_vectors) == (0, None)


@pytest.mark.parametrize("as_text", [True, False])
def test_a_file_of_ones_own_is_read_whole(tmp_path: Path, as_text: bool) -> None:
    path = write(tmp_path, GOOD)
    recipe = load_recipe(str(path) if as_text else path)
    assert (recipe.name, recipe.kind, recipe.rescore, recipe.max_vectors) == ("mine", "ann", True, 5000)
    assert recipe.training.points_per_list == 50
    assert recipe.measured[0].parameters == {"nprobe": 8}
    assert recipe.measured[0].recall_image == 1.0


def test_lists_grow_with_the_root_and_stay_trainable(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.factory_for(1_000_000, 512) == "IVF4000,RaBitQ"
    assert recipe.lists(10) == 1
    for vectors in (39, 400, 5000, 20_000):
        assert 1 <= recipe.lists(vectors) <= vectors // 39


def test_parameters_override_defaults_within_their_range(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.check_parameters({}) == {"nprobe": 8}
    assert recipe.check_parameters({"nprobe": 64}) == {"nprobe": 64}
    for wrong in ({"nprobe": 65}, {"nprobe": 0}, {"nprobe": True}, {"ef_search": 3}, {"nprobe": 2.0}):
        with pytest.raises(RecipeError, match=next(iter(wrong))):
            recipe.check_parameters(wrong)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('kind = "ann"', "", "`kind` is missing"),
        ('kind = "ann"', 'kind = "magic"', "one of exact, ann"),
        ('name = "mine"', "name = 3", "`name` is 3; a text"),
        ("rescore = true", "rescore = 1", "`rescore` is 1; true or false"),
        (
            "rescore = true",
            "rescore = true\nrescoer = true",
            "rescoer is not known here; known are name, description, kind",
        ),
        ("min_vectors = 1000", "min_vectors = -1", "`min_vectors` is -1; a whole number"),
        ("min_vectors = 1000", "min_vectors = 9000", "`max_vectors` 5000 is below `min_vectors` 9000"),
        ("min_vectors = 1000", "min_vectors = 1.5", "`min_vectors` is 1.5; a whole number"),
        ("lists_per_root = 4", "", "go together"),
        ("IVF{lists},RaBitQ", "RaBitQ", "go together"),
        ("points_per_list = 50", "points_per_list = 2", r"\[training\]: `points_per_list` is 2"),
        ("points_per_list = 50", "text_share = 1.5", "between 0 and 1"),
        ("[parameters.nprobe]", "[parameters.probes]", "no such search parameter; there are ef_search"),
        ("grid = [1, 8, 64]", "grid = [8, 1]", "ascending"),
        ("grid = [1, 8, 64]", "grid = []", "ascending"),
        ("grid = [1, 8, 64]", "grid = [1, 128]", "128 lies outside"),
        ("grid = [1, 8, 64]", 'grid = ["1"]', "list of whole numbers"),
        ("default = 8", "default = 80", "80 lies outside"),
        ("recall_text = 0.9", "recall_text = nan", "`recall_text` is nan"),
        ("recall_text = 0.9", 'recall_text = "high"', "`recall_text` is 'high'"),
        ("parameters = { nprobe = 8 }", "parameters = 8", "a table is expected"),
        ("parameters = { nprobe = 8 }", 'parameters = { nprobe = "8" }', "`nprobe` is '8'"),
        ("[training]", "[training", "is not TOML"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_missing_recipes_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'magic'; there are .*exact"):
        load_recipe("magic")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match="is not TOML"):
        (tmp_path / "latin.toml").write_bytes(b"name = '\xff'")
        load_recipe(tmp_path / "latin.toml")


def test_a_table_that_is_no_table_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"parameters.nprobe.*a table is expected"):
        parse_recipe(
            {
                "name": "x",
                "description": "x",
                "kind": "ann",
                "factory": "Flat",
                "parameters": {"nprobe": 3},
            },
            "here",
        )
