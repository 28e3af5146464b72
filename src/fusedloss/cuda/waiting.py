"""Waiting for cards: the one place where a caller does so on purpose."""

from . import card


def synchronize(device: str = "cuda") -> None:
    """Wait until a CUDA device has done what this library's calls enqueued there, and raise what they found wrong.

    Calls with arrays on a CUDA device return before their kernels have run. A target out of range, a weight that is
    negative or not finite, or a probability outside [0, 1] is therefore raised by the next call on that device, or
    here: once, by the first that comes after the kernels have run.

    Parameters
    ----------
    device : str
        ``"cuda"`` for every device that was used, or one of them, such as ``"cuda:1"``.

    Raises
    ------
    TargetError, OptionError, ProbabilityError
        What the oldest call that failed found wrong, in the words of a call on the host.
    DeviceError
        If `device` names no CUDA device that can serve.
    """
    for each in card.named(device):
        with each:
            each.pending.wait()
