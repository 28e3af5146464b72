"""What CUDA's own tools make of a kernel, on a machine without a card: registers, local memory, instructions."""

import collections
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from cuda import pathfinder

ARCHITECTURES = {(8, 0): "sm_80", (9, 0, "a"): "sm_90a", (10, 0): "sm_100"}
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P[T0-9]+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)


class Cubin(NamedTuple):
    """A kernel as the card runs it."""

    arch: str
    registers: int
    stack: int  # bytes of local memory
    spills: int  # bytes
    shared: int  # bytes, beside the dynamic ones
    instructions: collections.Counter[str]
    sass: str

    def count(self, pattern: str) -> int:
        """How many instructions begin so, parts of names counting whole: ``LDG.E.128`` is one of ``LDG``."""
        return sum(count for name, count in self.instructions.items() if (name + ".").startswith(pattern + "."))

    @property
    def calls(self) -> int:
        return self.count("CALL")


def _run(tool: str, *args: str) -> str:
    path = pathfinder.find_nvidia_binary_utility(tool)
    assert path, f"{tool} is not installed"
    done = subprocess.run([path, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _said(log: str, pattern: str) -> int:
    found = re.search(pattern, log)
    return int(found[1]) if found else 0


def cubin(ptx: str) -> Cubin:
    """Assemble PTX of one kernel for the architecture it names."""
    arch = re.search(r"\.target (sm_\w+)", ptx)[1]
    with tempfile.TemporaryDirectory() as folder:
        text, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        text.write_text(ptx)
        log = _run("ptxas", "-v", f"-arch={arch}", str(text), "-o", str(binary))
        sass = _run("nvdisasm", "-c", str(binary))
    return Cubin(
        arch=arch,
        registers=_said(log, r"Used (\d+) registers"),
        stack=_said(log, r"(\d+) bytes stack frame"),
        spills=_said(log, r"(\d+) bytes spill stores") + _said(log, r"(\d+) bytes spill loads"),
        shared=_said(log, r"(\d+) bytes smem"),
        instructions=collections.Counter(INSTRUCTION.findall(sass)),
        sass=sass,
    )
