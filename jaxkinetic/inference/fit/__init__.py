"""Least-squares fits: the likelihood, the search for its minimum, intervals, bands."""
