"""Every error the library raises. Each one says what was given and what was expected."""

__all__ = [
    "AnswerError",
    "DTypeError",
    "DeviceError",
    "FileError",
    "FusedLossError",
    "OptionError",
    "ProbabilityError",
    "ShapeError",
    "TargetError",
]


class FusedLossError(Exception):
    """The base of every error of fusedloss."""


class ShapeError(FusedLossError, ValueError):
    """An array does not have the shape that the other arguments ask for."""


class DTypeError(FusedLossError, TypeError):
    """An array has a dtype, or is of a kind, that is not supported in its place."""


class OptionError(FusedLossError, ValueError):
    """An option is unknown, out of range, or at odds with another one."""


class DeviceError(FusedLossError, ValueError):
    """A device is unknown or cannot serve; the message says why."""


class TargetError(FusedLossError, ValueError):
    """A hard target is neither a class nor ``ignore_index``; the message names the first one."""


class ProbabilityError(FusedLossError, ValueError):
    """A probability lies outside [0, 1]; the message names the first one."""


class FileError(FusedLossError, ValueError):
    """A file cannot be read or written, is damaged, or does not hold what was asked for."""


class AnswerError(FusedLossError, ArithmeticError):
    """A contender of a benchmark fails, or computes something else than was asked for; the message says what."""
