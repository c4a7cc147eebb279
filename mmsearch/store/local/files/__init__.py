"""Append-only files of rows: vectors, their quantised codes, tokens of a reranker."""
