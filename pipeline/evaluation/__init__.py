"""From samples of several policies to one report. Nothing here loads a model."""
