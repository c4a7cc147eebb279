"""The command for assistants: `mcp`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mmsearch.cli.options import IndexOption, NeedsExtra, Only, with_options
from mmsearch.core.errors import UsageError
from mmsearch.core.options import EncoderOptions


@with_options("index allow_index http port token")
def mcp(
    index: IndexOption = "default",
    allow_index: Annotated[
        bool, typer.Option("--allow-index", help="Also let the assistant bring indexed folders up to date.")
    ] = False,
    http: Annotated[
        bool, typer.Option("--http", help="Listen on this machine instead of standard input and output.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where --http listens; 0: any port that is free.")] = 8643,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="MMSEARCH_TOKEN", help="What --http requests must bear; by default a new one each time.",
            show_default=False,
        ),
    ] = None,
    *,
    encoder: Annotated[EncoderOptions, Only(("device",))],
) -> None:  # fmt: skip
    """Lets assistants search an index, over the Model Context Protocol: they start this command themselves.

    Only files of the index leave it, and only to the assistant that asks. Nothing is written without --allow-index.
    """
    from mmsearch.api import Index
    from mmsearch.core.extras import install_hint
    from mmsearch.server import has_extra

    if not has_extra("mcp"):
        raise UsageError(f"the MCP server needs an extra that is not installed: {install_hint('mcp')}")
    from mmsearch.server.mcp import run_http, run_stdio

    def started(address: str, secret: str) -> None:
        print(f"{address}\nAuthorization: Bearer {secret}", file=sys.stderr, flush=True)

    with Index.open(index, options=encoder) as opened:
        if http:
            run_http(opened, port, token, started, allow_index=allow_index)
        else:
            run_stdio(opened, allow_index=allow_index)


class McpCommand(NeedsExtra):
    """`mcp`."""

    extra = "mcp"


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(short_help="Let assistants search (Model Context Protocol)", cls=McpCommand)(mcp)
