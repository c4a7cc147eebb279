"""The command line: parse, call one function, print. All work is done elsewhere."""

from __future__ import annotations

import gc
import sys

from mmsearch.cli.commands import app
from mmsearch.cli.failures import end_at_third_interrupt, failures_said, settle_streams
from mmsearch.cli.output import fail
from mmsearch.core.errors import MmsearchError


def main() -> None:
    """Runs the command line; errors become one line and exit code 2."""
    settle_streams()
    end_at_third_interrupt()
    try:
        try:
            with failures_said():
                app(prog_name="mmsearch")
        finally:
            with failures_said():
                sys.stdout.flush()
    except MmsearchError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    finally:
        gc.freeze()  # looking for garbage once more on the way out takes 0.1 s
