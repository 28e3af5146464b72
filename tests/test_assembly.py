"""What the hot loops compile to, for a processor with AVX-512 and one with AVX2: a guard that needs no clock.

A process of its own compiles a kernel for a named processor, so the counts are the same on every x86-64 machine.
"""

import os
import platform
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from fusedloss.kernels.calls import CALL
from fusedloss.kernels.cpu import row_format
from fusedloss.kernels.cpu_elements import ElementOptions, make_elements
from fusedloss.kernels.cpu_lanes import make_lanes
from fusedloss.kernels.cpu_parts import Options
from fusedloss.kernels.cpu_rows import make_rows
from fusedloss.kernels.jit import registers
from fusedloss.kernels.simd import Format
from numba.core.caching import NullCache

F4, BF, WIDE, PAIR = Format("f4", 16, "f4"), Format("bf", 16, "f4"), Format("f4", 64, "f4"), Format("f4", 32, "f4")
BINARY, BINARY_PAIR = (ElementOptions("binary_cross_entropy", f, (("x", f), ("target", f))) for f in (F4, PAIR))
CAPPED = Options(F4, "loss", "hard", transform="softcap")
FEW, FEW_WIDE = (Options(f, "loss", "hard", held=True, turned=True) for f in (F4, WIDE))
GRADIENT, FLUSHED = Options(F4, "loss", "hard", output="gradient", streamed=True), replace(BF, flushed=True)
SIGMOID = ElementOptions("sigmoid", FLUSHED, (("x", FLUSHED), ("out", FLUSHED)), streamed=True)
PROCESSORS = {"znver4": ("zmm", 1, "+avx512f,+avx512bf16"), "haswell": ("ymm", 2, "+avx2,+fma,+f16c")}
"""The registers that a processor's vectors fill, how many make sixteen lanes, and what of its kernels are asked for."""
KERNELS = {
    # kernel: what makes it, its options, and the most instructions of a hot loop for sixteen classes
    "loss": (make_rows, Options(F4, "loss", "hard"), {"znver4": 22, "haswell": 46}),
    "bfloat16 loss": (make_rows, Options(BF, "loss", "hard"), {"znver4": 21, "haswell": 47}),
    "gradient": (make_rows, GRADIENT, {"znver4": 22, "haswell": 46}),
    "long rows": (make_rows, Options(F4, "loss", "hard", binary=True), {"znver4": 19, "haswell": 41}),
    "long rows of bfloat16": (make_rows, Options(BF, "loss", "hard", binary=True), {"znver4": 20, "haswell": 47}),
    "kept": (make_rows, replace(GRADIENT, kept=True), {"znver4": 24, "haswell": 49}),
    "bfloat16 kept": (make_rows, replace(GRADIENT, kept=True, logits=FLUSHED), {"znver4": 24}),
    "scores": (make_rows, Options(F4, "score", "hard"), {"znver4": 32, "haswell": 71}),
    "softcap, bending": (make_rows, CAPPED, {"znver4": 29, "haswell": 66}),
    "softcap, summing": (make_rows, CAPPED, {"znver4": 22, "haswell": 51}),
    "few classes": (make_lanes, FEW, {"haswell": 42}),
    "few classes, four side by side": (make_lanes, FEW_WIDE, {"znver4": 18}),
    "binary": (make_elements, BINARY, {"haswell": 128}),
    "binary, two side by side": (make_elements, BINARY_PAIR, {"znver4": 58}),
    "bfloat16 sigmoid": (make_elements, SIGMOID, {"znver4": 40}),
}


def assembly(name, processor):
    """Compile a kernel for a processor: what a process that takes it for its own would run."""
    env = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": PROCESSORS[processor][2]}
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, check=True, env=env)
    return done.stdout.decode()


def print_assembly(name):
    """Write a kernel's assembly, never from the cache, which keeps none."""
    make, options, _ = KERNELS[name]
    if isinstance(options, Options):
        options = replace(options, registers=registers())
    if make is make_rows:
        options = replace(options, logits=row_format(options.logits))
    kernel = make(options)
    kernel._cache = NullCache()
    kernel.compile(CALL)
    sys.stdout.writelines(kernel.inspect_asm().values())


def innermost_loops(text):
    """The instructions of every loop that holds no other: from a label to the jump back to it."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    labels = {line[:-1]: at for at, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
    jumps = [(at, labels.get(line.split()[-1], at)) for at, line in enumerate(lines) if re.match(r"j\w+\s+\.L", line)]
    back = [(start, end) for end, start in jumps if start < end]
    for start, end in back:
        if not any(start <= s and e < end for s, e in back):
            yield [line for line in lines[start : end + 1] if re.match(r"[a-z]", line)]


def exponentials(loop):
    """How many vectors of exponentials a loop makes, those in a softcap too: each sets an exponent once."""
    return sum(bool(re.match(r"vpslld\s+\$(18|20|23),", line)) for line in loop)


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="counts x86-64 instructions")
@pytest.mark.parametrize(("name", "processor"), [(name, each) for name, (*_, most) in KERNELS.items() for each in most])
def test_hot_loops_fill_the_widest_registers_and_stay_short(name, processor):
    (register, parts, _), most = PROCESSORS[processor], KERNELS[name][2][processor]
    loops = list(innermost_loops(assembly(name, processor)))
    working = [loop for loop in loops if exponentials(loop) >= parts]
    if KERNELS[name][1] is CAPPED:  # one loop bends a block's logits, which takes divisions, and one adds them up
        working = [loop for loop in working if any("vdiv" in line for line in loop) == name.endswith("bending")]
    count, hot = min((len(loop) * parts / exponentials(loop), loop) for loop in working)
    assert count <= most, f"{count} instructions for sixteen classes"
    assert not [line for line in hot if line.startswith("call")]
    arithmetic = [line for line in hot if re.match(r"v(fn?m(add|sub)|mul|add|sub|max)\w*p[sd]", line)]
    assert all(register in line for line in arithmetic)
    if KERNELS[name][1].streamed:
        assert any(line.startswith("vmovnt") for loop in loops for line in loop), "the output goes to the caches"


if __name__ == "__main__":
    print_assembly(sys.argv[1])
