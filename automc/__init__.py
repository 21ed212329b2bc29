"""automc: how many channels each layer of a network keeps, and in how many bits it computes, searched for a device.

>>> import gymnasium
>>> environment = gymnasium.make("automc:automc/resnet8_digits-v0")

>>> import automc
>>> result = automc.search(model, data, limits={"latency_ms": 0.4})
"""

from automc import search
from automc.environment.registration import register_environments

__all__ = ["search"]
__version__ = "0.1.0"

register_environments()
