"""What `python -m pipeline <command>` does, one module a command."""
