"""Judges: whoever says how good a completion is, or which of two is better, behind one protocol."""
