"""The reference networks, one file a family; `zoo.py` knows them by name."""
