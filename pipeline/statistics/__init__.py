"""Intervals for the numbers that a report states."""
