"""The card: devices, contexts, memory, streams and launches; of CUDA's driver, or of the simulator in its place."""

import os

SIMULATED = os.environ.get("FUSEDLOSS_CUDA_SIMULATOR", "") == "1"
"""Whether CUDA is played by plain Python in this process: FUSEDLOSS_CUDA_SIMULATOR is 1."""

if SIMULATED:
    from .cuda_twin_driver import *  # noqa: F403
else:
    from .cuda_driver import *  # noqa: F403
