"""Where segments, vectors and metadata are kept: one contract, the local directory behind it."""
