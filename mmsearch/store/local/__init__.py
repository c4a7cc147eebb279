"""An index directory: SQLite catalogue, vector files, vector indexes, recipes."""
