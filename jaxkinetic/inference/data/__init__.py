"""Measured curves: the class, files of one's own, and the published tables."""
