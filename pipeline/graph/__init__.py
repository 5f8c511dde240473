"""Which stages there are, how they are wired, and when a sealed artifact is reused."""
