"""PPO: pure functions from samples to token rewards, advantages and weights, and the loop that joins them."""
