"""Fronts, statistics, figures and the report."""
