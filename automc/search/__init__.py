"""Searchers, studies with a log that can be replayed, experiments."""
