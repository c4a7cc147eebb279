"""What goes wrong on the command line: one line on the error stream, and exit code 2."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator

from mmsearch.core.errors import MmsearchError
from mmsearch.core.shortage import sentence_of

TRACEBACKS = "MMSEARCH_TRACEBACK"
"""The environment variable that shows where an error that nobody expected comes from."""


def settle_streams() -> None:
    """Gives the program the three streams that every program has, where it was started without some.

    A file opened later would take the place of a stream that is closed, and messages would be written into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's letters cannot say is escaped, and no error
            stream.reconfigure(errors="backslashreplace")


def end_at_third_interrupt() -> None:
    """Lets the third Ctrl-C end the program at once, whatever it is doing: the first finishes what is at hand and saves
    it, and either may have to wait for a library or a disk that does not answer. Nothing that was committed can be lost
    by it, as by a ``kill -9``.

    Python itself hears of an interrupt only between two steps of its own, so a thread listens.
    """
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # no descriptors, no threads: then as always
        heard, said = os.pipe()
        os.set_blocking(said, False)
        signal.set_wakeup_fd(said, warn_on_full_buffer=False)
        threading.Thread(target=_listen, args=(heard,), name="mmsearch-interrupts", daemon=True).start()


def _listen(heard: int) -> None:
    interrupts = 0
    while numbers := os.read(heard, 1):
        interrupts += numbers[0] == signal.SIGINT
        if interrupts >= 3:
            with contextlib.suppress(OSError):
                os.write(2, b"\nmmsearch: ended at once: what was committed is kept\n")
            os._exit(130)


@contextlib.contextmanager
def failures_said() -> Iterator[None]:
    """Lets the block end the program in a sentence, whatever goes wrong in it.

    Raises:
        MmsearchError: what was met, if it is no such error already.
    """
    try:
        yield
    except BrokenPipeError:
        end_quietly()
    except OSError as error:
        is_output = error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EBADF)
        what = "the output could not be written: " if is_output else ""
        raise MmsearchError(f"{what}{sentence_of(error)}") from error
    except MmsearchError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith(("typer", "click")):
            raise _unexpected(error) from error
        raise


def _unexpected(error: Exception) -> Exception:
    """A lack of memory, as a sentence; everything else is a fault in here."""
    if os.environ.get(TRACEBACKS):
        return error
    sentence = sentence_of(error)
    if sentence is not None:
        return MmsearchError(f"{sentence}: what was complete is kept; put that right and run the same command again")
    text = " ".join(str(error).split())[:500]
    return MmsearchError(
        f"this is a fault of mmsearch ({type(error).__name__}: {text}): what was complete is kept; with "
        f"{TRACEBACKS}=1 the same command shows where it happened, for a report"
    )


def end_quietly() -> None:
    """Ends the program whose reader has seen enough (`| head`): that is no failure."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered goes nowhere
    sys.exit(0)
