"""A process that measures a small network, and notes every kernel that it has timed, to be killed by a test."""

import os
import sys
from pathlib import Path

from automc.cost.measure import HostTimer, Need, measure
from automc.schema import SearchSpaceSpec
from tests.cost_examples import residual_network

SPACE = SearchSpaceSpec(description="", keep_ratio=[0.5, 1.0], weight_bits=[4, 8], activation_bits=[4, 8])
NEEDS: list[Need] = [(residual_network(), SPACE)]


class NotingTimer(HostTimer):
    """Writes a line for a kernel when it is timed, before anybody else knows."""

    def rows(self, probes, folder):
        for rows in super().rows(probes, folder):
            os.write(1, f"{rows[0].kernel}\n".encode())
            yield rows

    def doubtful(self):
        """None, so that a kernel is timed twice only where it was lost."""
        return []


if __name__ == "__main__":
    import automc.cost.measure

    automc.cost.measure.HostTimer = NotingTimer  # type: ignore[misc]
    measure(NEEDS, "portable", Path(sys.argv[1]), lambda line: None)
