"""Experiments with reward models on public human votes."""
