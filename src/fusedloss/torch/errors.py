"""The library's errors, each one also of the type that PyTorch raises in its place."""

from fusedloss import errors
from fusedloss.errors import FusedLossError


class ShapeError(errors.ShapeError, RuntimeError):
    """Tensors do not fit each other; PyTorch raises a ValueError or a RuntimeError."""


class DTypeError(errors.DTypeError, RuntimeError):
    """A tensor has a dtype that is not supported in its place."""


class OptionError(errors.OptionError, RuntimeError):
    """An option is unknown, out of range, or at odds with another one."""


class DeviceError(errors.DeviceError, RuntimeError):
    """A tensor is where no kernel can read it."""


class TargetError(errors.TargetError, IndexError):
    """A hard target is neither a class nor ``ignore_index``."""


class ProbabilityError(errors.ProbabilityError, RuntimeError):
    """A probability lies outside [0, 1]."""


_KINDS: dict[type[FusedLossError], type[FusedLossError]] = {
    kind.__mro__[1]: kind for kind in (ShapeError, DTypeError, OptionError, DeviceError, TargetError, ProbabilityError)
}


def as_torch(error: FusedLossError) -> FusedLossError:
    """Turn an error of the library into its twin."""
    return _KINDS[type(error)](*error.args)
