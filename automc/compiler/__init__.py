"""An integer program becomes C sources and a library for a target."""
