"""Device memory: predicted before a run, kept to a budget, and recovered where it runs out all the same."""
