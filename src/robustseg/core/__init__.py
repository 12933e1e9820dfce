"""What everything stands on: errors, labels, files, contracts, budgets, random streams, names."""
