"""Fine-tuning and RLHF in one command: raw data and votes in, an evaluated policy out."""

__version__ = "0.1.0"
