"""The machine that CUDA kernels are written for: a card, or its twin in Python where FUSEDLOSS_CUDA_SIMULATOR is 1.

Kernels take from here everything that only a machine can do, and run unchanged on either. What is a leaf of one is a
leaf of the other.
"""

from .cuda_card import SIMULATED

WARP = 32

if SIMULATED:
    from .cuda_schedule import *  # noqa: F403
    from .cuda_twin_memory import *  # noqa: F403
    from .cuda_twin_shared import *  # noqa: F403
    from .cuda_twins import *  # noqa: F403
else:
    from .cuda_memory import *  # noqa: F403
    from .cuda_prims import *  # noqa: F403
    from .cuda_tuples import *  # noqa: F403
