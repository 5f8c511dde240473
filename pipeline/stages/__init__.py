"""One module per stage: plain functions from a job to an outcome."""
