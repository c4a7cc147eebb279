"""Who may import whom, read from the sources: a file imports only rows above its own, and its folder's base."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mmsearch"
ROWS = (
    {"types", "errors", "migrations", "home", "system"},
    {
        "files", "decoders", "encoders", "rerankers", "row_file", "code_file", "vector_file", "token_file",
        "vector_index", "recipes", "catalogue", "filters", "metrics", "query_language", "ocr",
    },
    {"index", "index_encoder", "vectors", "kept_tokens"},
    {"ingest", "search", "training", "optimize", "switch", "verify", "watch"},
    {"evaluate"},
    {"asking"},
    {"api", "asking", "evaluating", "server", "cli", "__init__", "__main__"},
)  # fmt: skip
WITHIN_A_ROW = {
    ("migrations", "errors"),
    ("home", "errors"),
    ("query_language", "filters"),
    ("vector_index", "recipes"),
    ("rerankers", "encoders"),
    ("vectors", "index"),
    ("kept_tokens", "index"),
    ("index_encoder", "index"),
    ("vector_file", "row_file"),
    ("vector_file", "code_file"),
    ("vector_index", "code_file"),
    ("code_file", "row_file"),
    ("token_file", "row_file"),
    ("switch", "ingest"),
    ("verify", "ingest"),
    ("watch", "ingest"),
}
"""Rooms of one row that do know each other: what a recipe says is what a vector index builds."""
OWNERS = {
    "faiss": {"vector_index"},
    "sqlite_utils": {"catalogue", "migrations"},
    "typer": {"cli"},
    "rich": {"cli"},
    "av": {"decoders"},
    "torch": {"encoders", "rerankers", "training"},
    "open_clip": {"encoders", "rerankers", "training"},
    "rapidocr": {"ocr"},
    "transformers": {"rerankers"},
    "starlette": {"server"},
    "uvicorn": {"server"},
}
NEVER_AT_IMPORT = {"torch", "open_clip", "transformers", "av", "onnxruntime", "rich", "sqlite_utils", "rapidocr"}


def room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def row(name: str) -> int:
    return next(number for number, rooms in enumerate(ROWS) if name in rooms)


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.col_offset) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"mmsearch.{alias.name}" for alias in node.names] if node.module == "mmsearch" else [node.module]
            found += [(name or "", node.col_offset) for name in names]
    return found


def type_checking_only(tree: ast.Module) -> set[int]:
    """Ids of the import nodes below ``if TYPE_CHECKING``."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {id(node) for block in blocks for node in ast.walk(block)}


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_rows_above(module: Path) -> None:
    own = room(module)
    for name, _ in imports(ast.parse(module.read_text())):
        if not name.startswith("mmsearch."):
            continue
        other = name.split(".")[1]
        if other == "__version__" or other == own:
            continue
        same_row = {own, other} <= ROWS[-1] or (own, other) in WITHIN_A_ROW
        assert row(other) < row(own) or same_row, f"{own} → {other}"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_have_one_owner(module: Path) -> None:
    for name, _ in imports(ast.parse(module.read_text())):
        library = name.split(".")[0]
        if library in OWNERS:
            assert room(module) in OWNERS[library], f"{library} is imported by {module.name}"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_slow_libraries_are_imported_when_they_are_needed(module: Path) -> None:
    """At the top of a file that a query or `--help` reads, they would cost everybody."""
    tree = ast.parse(module.read_text())
    hidden = type_checking_only(tree)
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in hidden:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            heavy = {name.split(".")[0] for name in names} & NEVER_AT_IMPORT
            assert not heavy or _is_loaded_late(module), f"{module.name} imports {heavy}"


def _is_loaded_late(module: Path) -> bool:
    """Modules that exist to hold one heavy library, themselves imported inside functions only."""
    return (room(module) == "training" and module.name != "__init__.py") or module.relative_to(PACKAGE).as_posix() in {
        "encoders/open_clip.py", "encoders/open_clip_loading.py", "encoders/patches.py", "encoders/text_module.py",
        "rerankers/coca.py", "decoders/video.py", "decoders/video_sampling.py",
    }  # fmt: skip


def test_every_file_is_short_enough_to_be_one_topic() -> None:
    long = {str(m.relative_to(PACKAGE)): n for m in MODULES if (n := len(m.read_text().splitlines())) > 380}
    assert not long
