"""What a plain installation lacks: each optional package belongs to an extra of the distribution."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str, *packages: str) -> Iterator[None]:
    """Import optional packages; where one is missing, the error names the extra that has it.

    Parameters
    ----------
    name : str
        The extra.
    *packages : str
        Those it has, where others may be missing too that it has not; all that are imported by default.

    Raises
    ------
    ModuleNotFoundError
        A package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if packages and error.name not in packages:
            raise
        raise ModuleNotFoundError(
            f"{error.name} is not installed, which fusedloss.{name} needs: pip install 'fusedloss[{name}]'",
            name=error.name,
        ) from error
