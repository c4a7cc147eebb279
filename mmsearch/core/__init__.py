"""What every room knows: types, errors, where indexes live, and what is asked of the operating system."""
