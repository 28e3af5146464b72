"""``fusedloss bench``: the library beside the frameworks that are installed, and beside what memory allows."""

import json
from argparse import Namespace
from contextlib import nullcontext

import fusedloss as fl

from ..bench.cases import tasks
from ..bench.peers import available, chosen
from ..errors import DeviceError, OptionError
from ..results import replacing


def run(options: Namespace) -> None:
    """Time what was asked for; print a table for each pair of arrays, and write all as JSON."""
    if not (cpu := fl.devices()["cpu"]).available:
        raise DeviceError(f"bench compares the device 'cpu', which cannot serve: {cpu.reason}")
    from ..bench.session import measured

    if options.threads is not None:
        fl.set_num_threads(options.threads)
    peers = available() if options.against is None else chosen(options.against)
    wanted = tasks(options.losses, options.shapes, options.dtype, options.cases)
    if not wanted:
        raise OptionError("nothing to time: evaluate goes with the losses hard and binary alone")
    with replacing(options.json) if options.json else nullcontext() as file:
        told = measured(wanted, peers, options.rounds, quiet=options.quiet)
        if file:
            file.write((json.dumps(told, indent=2, allow_nan=False) + "\n").encode())
