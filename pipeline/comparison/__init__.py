"""Runs side by side: read from what they left behind, without checks, models or samples."""
