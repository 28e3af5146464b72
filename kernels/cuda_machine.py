"""The machine that CUDA kernels are written for: a card, or, where $FUSEDLOSS_CUDA_SIMULATOR is 1, its twin in Python.

Kernels take everything that only a machine can do from here, and run unchanged on either.
"""

import os

SIMULATED = os.environ.get("FUSEDLOSS_CUDA_SIMULATOR", "") == "1"
WARP = 32

if SIMULATED:
    from .cuda_twins import (
        absolute, atomic_least, block, blocks, ex2, exponent, fma, fmax, following, funnel, held, held16, hold, hold16,
        jit, load16, load16_kept, mantissa, maximum, minimum, pack, peek, poke, pow2, real, select, shuffle_xor,
        store16, sync, sync_any, thread, threads, unpack, vote_any, whole, wide,
    )  # fmt: skip
else:
    from .cuda_memory import (
        atomic_least, funnel, held, held16, hold, hold16, load16, load16_kept, pack, peek, poke, store16, unpack,
    )  # fmt: skip
    from .cuda_prims import (
        absolute, block, blocks, ex2, exponent, fma, fmax, following, jit, mantissa, maximum, minimum, pow2, real,
        select, shuffle_xor, sync, sync_any, thread, threads, vote_any, whole, wide,
    )  # fmt: skip

__all__ = [
    "SIMULATED", "WARP", "absolute", "atomic_least", "block", "blocks", "ex2", "exponent", "fma", "fmax", "following",
    "funnel", "held", "held16", "hold", "hold16", "jit", "load16", "load16_kept", "mantissa", "maximum", "minimum",
    "pack", "peek", "poke", "pow2", "real", "select", "shuffle_xor", "store16", "sync", "sync_any", "thread", "threads",
    "unpack", "vote_any", "whole", "wide",
]  # fmt: skip
