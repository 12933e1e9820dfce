"""Studies of papers: what to run, our figures beside theirs, a verdict on each claim."""
