"""What scores mean in one index: hubness, and the relevance that a score stands for."""
