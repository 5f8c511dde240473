"""Sealed folders: what passes between stages, and how it is written so that a crash loses nothing."""
