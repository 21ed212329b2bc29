"""automc: how many channels each layer of a network keeps, and in how many bits it computes, searched for a device.

>>> import gymnasium
>>> environment = gymnasium.make("automc:automc/resnet8_digits-v0")
"""

__version__ = "0.1.0"
