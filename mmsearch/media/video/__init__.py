"""Videos: frames chosen from a stream, one for each moment."""
