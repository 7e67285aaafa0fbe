"""Baselines and measurements of the method's parts."""
