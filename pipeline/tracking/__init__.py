"""The record of every run, and its mirror in Weights & Biases."""
