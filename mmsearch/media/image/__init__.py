"""Pictures: one reader, its colour management, metadata, RAW previews."""
