"""What the benchmarks share.

environment   the code, the machine and the versions; memory
photos        pictures and videos: real ones where there are some, else generated
vectors       image vectors and text queries: synthetic ones, and Flickr8k's
contenders    the ways to search vectors: recipes and peers
timing        clocks, rates, percentiles, work taken in turns
output        the command line of a benchmark, and results/NAME.json

Importing it puts the clone that it lies in before any mmsearch that is installed, for this process and for those it
starts: ``python benchmarks/NAME.py`` measures the code beside it.
"""

import os
import sys
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(CLONE))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CLONE), os.environ.get("PYTHONPATH")]))
