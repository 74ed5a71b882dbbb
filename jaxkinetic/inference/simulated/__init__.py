"""Fits through the particle simulator."""
