"""The Python interface: `Index`, opened, filled, asked and measured."""

from mmsearch.api.index import Index

__all__ = ["Index"]
