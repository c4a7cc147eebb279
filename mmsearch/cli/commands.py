"""The program: its commands come from the other files here; each parses, calls one function and prints."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mmsearch import __version__
from mmsearch.cli import (
    config_commands,
    copy_commands,
    duplicates_command,
    eval_commands,
    help_command,
    index_commands,
    mcp_command,
    model_commands,
    query_commands,
    speech_commands,
    switch_command,
    train_commands,
    vector_commands,
)
from mmsearch.cli.config import default_map
from mmsearch.cli.failures import failures_said
from mmsearch.core.errors import UsageError

OTHER_WORDS = {
    "search": "query", "find": "query", "ask": "query", "add": "index", "update": "index", "scan": "index",
    "delete": "remove", "rm": "remove", "forget": "remove", "info": "status", "list": "status", "ls": "status",
    "check": "verify", "repair": "verify --mend", "tune": "optimize", "server": "serve", "web": "serve",
    "evaluate": "eval", "benchmark": "eval", "finetune": "train", "encoders": "models", "pull": "models pull",
    "download": "models pull", "subtitles": "transcribe", "captions": "transcribe", "watch": "index --watch",
    "dups": "duplicates", "dedup": "duplicates", "settings": "config",
}  # fmt: skip
"""What people type for a command that is called otherwise here."""


_WITHOUT_FILE = ("config", "help", "-h", "--help", "--version")
"""What works with a file of settings that is broken, too: nobody could mend it otherwise."""


class Commands(TyperGroup):
    """All commands; one that does not exist is an error that names the one that is meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See click."""
        if args and args[0] not in self.commands:
            close = difflib.get_close_matches(args[0].lower(), (*self.commands, *OTHER_WORDS), 1)
            if close and close[0] in OTHER_WORDS:
                raise UsageError(f"there is no command {args[0]}: did you mean `mmsearch {OTHER_WORDS[close[0]]}`?")
        return super().resolve_command(ctx, args)

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        """See click, which would take a closed pipe for a failure."""
        with failures_said():
            words = list(arguments[1] if len(arguments) > 1 else named.get("args", ()))
            if not named.get("resilient_parsing") and words and words[0] not in _WITHOUT_FILE:
                named.setdefault("default_map", default_map(self))
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        """See click."""
        with failures_said():
            return super().invoke(ctx)


app = typer.Typer(
    name="mmsearch",
    cls=Commands,
    help="Search your own photos, videos and texts by meaning. Everything stays on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (
    index_commands,
    query_commands,
    duplicates_command,
    mcp_command,
    eval_commands,
    model_commands,
    train_commands,
    vector_commands,
    switch_command,
    copy_commands,
    speech_commands,
    config_commands,
    help_command,
):
    commands.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mmsearch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
