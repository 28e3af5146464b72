"""What measures on a card, on the simulated one and arrays of no size; and what becomes of its results."""

import json

import pytest
from gpu_place import tensors_on_card

from bench import gpu_speed

assert tensors_on_card

PLACE = gpu_speed.Place("cpu", 0, 1, gpu_speed.by_clock, gpu_speed.by_clock)
SMALL = ["bfloat16-1024", "float32-4096", "few-bfloat16-10", "few-float32-256", "call"]


@pytest.mark.parametrize("name", SMALL)
def test_a_section(tensors_on_card, name):
    told = list(gpu_speed.SECTIONS[name](PLACE))
    assert told
    for row in told:
        assert row == json.loads(json.dumps(row))
        assert row["reached"] > 0
        assert len(row["seconds"]) == 2
        assert row["met"] in gpu_speed.line(row)
