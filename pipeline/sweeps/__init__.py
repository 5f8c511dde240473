"""Many runs of one experiment: what they are, how they are started, watched, stopped and told."""
