"""Loading, adapters, log-probabilities, generation and scoring."""
