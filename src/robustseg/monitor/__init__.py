"""Networks that watch each other: which of them is under attack, where, and what to answer instead."""
