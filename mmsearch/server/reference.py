"""The page that documents the interface, made from its OpenAPI schema: plain HTML, nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any


def reference_page(schema: dict[str, Any]) -> str:
    """A page with all addresses of an OpenAPI 3.1 schema by tag, their parameters and bodies."""
    title = f"{escape(schema['info']['title'])} {escape(schema['info']['version'])}"
    body = "".join(_sections(schema))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}: HTTP API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="docs.css"></head><body><main>'
        f"<h1>{title}: HTTP API</h1><p>{_text(schema['info'].get('description', ''))} "
        '<a href="openapi.json">OpenAPI 3.1 as JSON</a></p>'
        f"{body}</main></body></html>\n"
    )


def _sections(schema: dict[str, Any]) -> Iterator[str]:
    sections: dict[str, list[str]] = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["Other"])[0]
            sections.setdefault(tag, []).append("".join(_operation(schema, method, path, operation)))
    for tag, operations in sections.items():
        yield f"<h2>{escape(tag)}</h2>{''.join(operations)}"


def _operation(schema: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<section><h3><code>{method.upper()} {escape(path)}</code></h3><p>{_text(operation.get('summary', ''))}</p>"
    parameters = [
        (one["name"], one["schema"], one.get("description", ""), one.get("required", False), one.get("deprecated"))
        for one in operation.get("parameters", ())
    ]
    yield _table("Parameters", schema, parameters)
    body = operation.get("requestBody", {})
    if body:
        yield f"<p>{_text(body.get('description', 'In the body:'))}</p>"
    for kind, content in body.get("content", {}).items():
        yield _table(f"Body, {kind}", schema, _properties(schema, content.get("schema", {})))
    yield "</section>"


def _properties(schema: dict[str, Any], own: dict[str, Any]) -> list[tuple[Any, ...]]:
    resolved = _resolved(schema, own)
    needed = resolved.get("required", ())
    return [
        (name, one, one.get("description", ""), name in needed, one.get("deprecated"))
        for name, one in resolved.get("properties", {}).items()
    ]


def _table(title: str, schema: dict[str, Any], rows: list[tuple[Any, ...]]) -> str:
    shown = "".join(
        f"<tr><th scope='row'><code>{escape(name)}</code></th><td>{escape(_type(schema, type_))}"
        f"{', required' if needed else ''}</td><td>{_text(about)}</td></tr>"
        for name, type_, about, needed, old in rows if not old
    )  # fmt: skip
    return f"<table><caption>{escape(title)}</caption>{shown}</table>" if shown else ""


def _type(schema: dict[str, Any], own: dict[str, Any]) -> str:
    """A type in words: ``integer, 1 to 500``."""
    if "$ref" in own:
        return str(own["$ref"].rpartition("/")[2])
    if "anyOf" in own:
        return " or ".join(_type(schema, one) for one in own["anyOf"] if one.get("type") != "null")
    if "enum" in own:
        return ", ".join(map(str, own["enum"]))
    if own.get("type") == "array":
        return f"list of {_type(schema, own.get('items', {}))}"
    bounds = [own.get("minimum"), own.get("maximum")]
    words = ""
    if None not in bounds:
        words = f", {bounds[0]:g} to {bounds[1]:g}"
    elif bounds[0] is not None:
        words = f", at least {bounds[0]:g}"
    return f"{own.get('type', 'anything')}{words}"


def _resolved(schema: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in own:
        return own
    found: dict[str, Any] = schema["components"]["schemas"][own["$ref"].rpartition("/")[2]]
    return found


def _text(words: str) -> str:
    """Escaped, with ``code`` between backticks."""
    parts = escape(words).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
