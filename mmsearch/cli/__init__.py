"""The command line: parse, call one function, print. All work is done elsewhere."""

from __future__ import annotations

import gc
import sys

from mmsearch.cli.commands import app
from mmsearch.cli.output import fail
from mmsearch.core.errors import MmsearchError


def main() -> None:
    """Runs the command line; errors that mmsearch raises become one line and exit code 2."""
    try:
        app()
    except MmsearchError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(0)
    finally:
        gc.freeze()  # looking for garbage once more on the way out takes 0.1 s
