"""Texts: passages of a length that a text encoder reads, captions beside photos."""
