"""The machine under a run: device, number format, memory, seeds and signals."""
