"""Models: what turns media and texts into vectors (encoders) and scores pairs closely (rerankers)."""
