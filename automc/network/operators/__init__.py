"""What automc understands of PyTorch: one small function for each operation of a module, by kind, in one table."""

from automc.network.operators import activations, arithmetic, moves, pooling, weights
from automc.network.operators.refused import ADVICE
from automc.network.operators.table import FUNCTIONS, Place

__all__ = ["ADVICE", "FUNCTIONS", "Place", "activations", "arithmetic", "moves", "pooling", "weights"]
