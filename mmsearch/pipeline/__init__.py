"""source → plan → read → compute → commit."""
