"""Rules that a completion follows or breaks, in a closed registry by name."""
