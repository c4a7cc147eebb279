"""The `verify` line: catalogue, vector file and disk → what does not agree → mended."""

from mmsearch.verify.differences import Difference, Verdict
from mmsearch.verify.mending import mend
from mmsearch.verify.verifying import verify

__all__ = ["Difference", "Verdict", "mend", "verify"]
