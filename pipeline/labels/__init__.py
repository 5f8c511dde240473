"""Human votes: importing them, what they say together, and how far they can be trusted."""
