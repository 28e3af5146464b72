"""How a refusal is checked."""

import pytest

import fusedloss as fl


def refuses(error, message, call, *args, **options):
    """Check the type of an error, also as a built-in one, and the whole of its message."""
    with pytest.raises(TypeError if error is fl.DTypeError else ValueError) as caught:
        call(*args, **options)
    assert type(caught.value) is error
    assert isinstance(caught.value, fl.FusedLossError)
    assert str(caught.value) == message
