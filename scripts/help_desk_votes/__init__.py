"""How the embedded votes of the help desk were made: prompts, samples, a utility, planted annotators, an export."""
