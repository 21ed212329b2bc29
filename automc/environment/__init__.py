"""The Gymnasium environment whose episodes are policies."""
