"""The command that shows an index in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from mmsearch.cli.options import IndexOption
from mmsearch.cli.shared import DeviceOption, encoder_options


def serve(
    index: IndexOption = "default",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0: any port that is free.")] = 8642,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="MMSEARCH_TOKEN", help="What requests must bear; by default a new one each time.", show_default=False
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Shows an index as a page in the browser, and answers programs in JSON, on this machine alone, until Ctrl-C.

    The address that is printed has a token in it, without which nothing is answered.
    """
    from mmsearch.api import Index
    from mmsearch.server.run import serve as run

    def started(address: str) -> None:
        print(address, flush=True)
        if open_:
            typer.launch(address)

    with Index.open(index, options=encoder_options(device)) as opened:
        run(opened, port, token, started)


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(short_help="Search in the browser, on this machine alone")(serve)
