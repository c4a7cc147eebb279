"""Ctrl-C: the third one ends the program at once, whatever hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

STUBBORN = """
import time
from mmsearch.cli.failures import end_at_third_interrupt
end_at_third_interrupt()
while True:
    try:
        print("waiting", flush=True)
        while True:
            time.sleep(60)
    except KeyboardInterrupt:
        pass
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_the_third_interrupt_ends_it() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == b"waiting\n"
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"kept" in said
