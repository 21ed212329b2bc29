"""automc: how many channels each layer of a network keeps, and in how many bits it computes, searched for a device.

>>> import gymnasium
>>> environment = gymnasium.make("automc:automc/resnet8_digits-v0")
"""

from automc.environment.registration import register_environments

__version__ = "0.1.0"

register_environments()
