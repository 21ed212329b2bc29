"""A torch network becomes layers, shapes and coupled channel groups; reference networks and data sets."""
