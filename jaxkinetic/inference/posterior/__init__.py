"""Posteriors on a grid that adapts, and what they predict."""
