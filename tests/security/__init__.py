"""Hostile input: programs that print their figures, and short runs of them as tests."""
