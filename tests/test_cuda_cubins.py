"""What CUDA's kernels over classes compile to: no local memory, registers enough, 16 bytes an access in hot loops.

Each option that makes other code is there, and each dtype; what is compiled is what is shipped, PTX and all.
"""

import pytest
from cuda_machines import ON_LINUX, card

if not ON_LINUX:
    pytest.skip("nothing compiles for CUDA here", allow_module_level=True)

from cubins import ARCHITECTURES, cubin, hardware
from fusedloss.kernels import cuda_ptx

HARD = {"result": "loss", "target": "hard", "target_code": "i8"}
SOFT = {"result": "loss", "target": "soft"}
GRADIENT = {"output": "gradient"}
SCORE = HARD | {"result": "score"}
EVERYTHING = {"smoothed": True, "weighted": True, "transform": "softcap"}

ROWS = {
    "gradient": [
        {"logits": "bf", "group": 4, **HARD, **GRADIENT},
        {"logits": "f2", "group": 16, **HARD, **GRADIENT, "target_code": "u1"},
        {"logits": "f4", "group": 32, **HARD, **GRADIENT},
        {"logits": "f4", "group": 512, **HARD, **GRADIENT, "transform": "scale"},
        {"logits": "f8", "group": 256, **HARD, **GRADIENT, "target_code": "u8"},
    ],
    "loss": [
        {"logits": "bf", "group": 512, **HARD},
        {"logits": "f4", "group": 8, **HARD, "target_code": "i4"},
        {"logits": "f8", "group": 32, **HARD, "smoothed": True},
    ],
    "options": [
        {"logits": "bf", "group": 256, **HARD, **GRADIENT, **EVERYTHING},
        {"logits": "f8", "group": 128, **HARD, **GRADIENT, **EVERYTHING},
    ],
    "soft": [
        {"logits": "bf", "soft": "bf", "group": 512, **SOFT, **GRADIENT},
        {"logits": "f4", "soft": "f8", "group": 128, **SOFT, **GRADIENT, **EVERYTHING},
        {"logits": "f2", "soft": "f4", "group": 8, **SOFT, "transform": "scale"},
        {"logits": "f4", "soft": "f4", "group": 16, **SOFT, **GRADIENT, "divergence": True},
        {"logits": "f8", "soft": "f8", "group": 512, **SOFT, **GRADIENT, "divergence": True},
    ],
    "score": [
        {"logits": "bf", "group": 512, **SCORE},
        {"logits": "f4", "group": 32, **SCORE, "transform": "softcap"},
        {"logits": "f8", "group": 4, **SCORE},
        {"logits": "f2", "group": 128, "result": "score"},
    ],
    "activations": [
        {"logits": "bf", "group": 128, "result": "", "output": "softmax"},
        {"logits": "f8", "group": 16, "result": "", "output": "softmax"},
        {"logits": "f4", "group": 512, "result": "", "output": "log_softmax"},
        {"logits": "f2", "group": 256, "result": "lse"},
    ],
}  # fmt: skip
TILES = [
    {"logits": "bf", **HARD, **GRADIENT},
    {"logits": "f8", **HARD, **GRADIENT, **EVERYTHING},
    {"logits": "f2", **SCORE},
    {"logits": "f4", "result": "", "output": "softmax"},
]
LANES = [
    {"logits": "f4", **HARD, **GRADIENT},
    {"logits": "f8", "soft": "f8", **SOFT, **GRADIENT, "divergence": True},
    {"logits": "bf", "soft": "f4", **SOFT, **GRADIENT, **EVERYTHING},
    {"logits": "bf", **SCORE},
]


def cases(group):
    """Options as parameters, named by what they are."""
    words = (("-".join(map(str, options.values())), options) for options in group)
    return [pytest.param(options, id=name.replace("True", "with")) for name, options in words]


def assembled(given):
    """A kernel for each architecture, and its options. It has no local memory, and no helper is called."""
    cuda = hardware("cuda")
    options = cuda.CudaOptions(**given, threads=max(given.get("group", 1), cuda.THREADS))
    ptx = hardware("cuda_compile").ptx_of(cuda._kernel(options))
    for arch in ARCHITECTURES:
        found = cubin(ptx, arch)
        assert (found.stack, found.spills, found.shared) == (0, 0, 0), arch
        assert not found.count("LDL"), arch
        assert not found.count("STL"), arch
        assert found.registers <= 128, arch
        assert all("$__cuda_sm" in name for name in found.called), found.called
        yield options, found


def wide(found, name):
    """How many accesses of 16 bytes there are in loops, most first; none of them is beside a narrower one."""
    return found.streamed(f"{name}.128")


@pytest.mark.slow
@pytest.mark.parametrize("given", cases(options for family in ROWS.values() for options in family))
def test_rows(given):
    """A row is read by as many loads at once as are meant to be, wherever it begins; and written so."""
    for options, found in assembled(given):
        aligned, shifted = wide(found, "LDG.E.NA"), wide(found, "LDG.E")
        assert aligned[0] >= options.vectors
        assert shifted[0] >= 2 * options.vectors
        assert wide(found, "STG.E.EF") == [1] * (options.output != "")
        assert bool(wide(found, "STS")) == bool(wide(found, "LDS")) == (options.output != "")
        if options.target != "soft" and not options.weighted:
            assert aligned[0] == options.vectors


@pytest.mark.slow
@pytest.mark.parametrize("given", cases(TILES))
def test_tiles(given):
    for options, found in assembled({**given, "tiled": True}):
        assert wide(found, "LDG.E.NA")
        assert bool(wide(found, "STG.E.EF")) == (options.output != "")


@pytest.mark.slow
@pytest.mark.parametrize("given", cases(LANES))
def test_lanes(given):
    for _, found in assembled(given):
        assert not found.count("LDG.E.NA.128")
        assert not found.count("STG.E.EF.128")


def test_loops_are_told_from_each_other():
    """What the other tests go by: a loop counts by its way without narrow accesses, if it has one."""
    m = card()
    load16, store16, peek, poke = m.load16, m.store16, m.peek("f4"), m.poke("f4")

    def kernel(x, out, n):
        k = 0
        while k < n:
            store16(out + 16 * k, load16(x + 16 * k))
            k += 1
        k = 0
        while k < n:
            if k & 64:
                poke(out + 4 * k, peek(x + 4 * k) + peek(x + 8 * k) / peek(x + 12 * k))
            else:
                store16(out + 48 * k, load16(x + 32 * k))
            k += 1
        while k > 0:
            poke(out + 4 * k, peek(x + 4 * k))
            store16(out + 16 * k, load16(x + 16 * k))
            k -= 1

    found = cubin(cuda_ptx.compiled(kernel, 3, 0, 32), "sm_90a")
    streamed = found.streamed("LDG.E.NA.128")
    assert streamed.count(1) >= 1
    assert 2 <= len(streamed) <= found.count("LDG.E.NA.128")
    assert found.count("LDG.E") > sum(streamed)
