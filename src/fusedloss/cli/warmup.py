"""``fusedloss warmup``: compile now what the first calls would wait for."""

import time
from argparse import Namespace

import fusedloss as fl

from .info import cache_directory

_DTYPES = ("float32", "float64", "float16", "bfloat16")


def run(options: Namespace) -> None:
    """Compile for every dtype, and tell how long each took."""
    for dtype in _DTYPES:
        started = time.perf_counter()
        try:
            fl.warmup((dtype,), device=options.device)
        except fl.DTypeError as error:  # bfloat16 without ml_dtypes
            print(f"{dtype:<8}  {error}")
        else:
            print(f"{dtype:<8}  {time.perf_counter() - started:6.2f} s", flush=True)
    print(f"cache     {cache_directory()}")
