"""`python -m mmsearch` is the command line."""

from mmsearch.cli import main

main()
