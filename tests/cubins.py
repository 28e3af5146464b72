"""What CUDA's own tools make of a kernel, on a machine without a card: registers, local memory, instructions."""

import collections
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import fusedloss.kernels
from cuda import pathfinder

ARCHITECTURES = "sm_80", "sm_90a", "sm_100"
LABEL, TARGET = re.compile(r"^(\.L_x_\d+):"), re.compile(r"`\((\.L_x_\d+)\)")
CONDITION = re.compile(r"\*/\s+@|(?:BRA|EXIT)\S*\s+!?U?P\d")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P[T0-9]+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)


HARDWARE = "kernels_on_hardware"


def hardware(name: str) -> ModuleType:
    """A module of kernels on the hardware's leaves, whatever machine this process simulates."""
    simulated = os.environ.pop("FUSEDLOSS_CUDA_SIMULATOR", None)
    try:
        if HARDWARE not in sys.modules:
            place = Path(fusedloss.kernels.__file__)
            spec = importlib.util.spec_from_file_location(
                HARDWARE, place, submodule_search_locations=[str(place.parent)]
            )
            sys.modules[HARDWARE] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[HARDWARE])
        return importlib.import_module(f"{HARDWARE}.{name}")
    finally:
        if simulated is not None:
            os.environ["FUSEDLOSS_CUDA_SIMULATOR"] = simulated


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

    @property
    def called(self) -> set[str]:
        """The functions that are called: the assembler's own, as for divisions, if every helper was spliced in."""
        return set(re.findall(r"CALL\S* `\((?!\.L_x_)(\S+)\)", self.sass))

    def streamed(self, *names: str) -> list[int]:
        """How many of the instructions `names` there are in each loop that has some, most first.

        Of a loop only the ways round count that lead through no inner loop and no global access of less than 16 bytes,
        unless that is skipped by a predicate.
        """
        blocks = _blocks(self.sass)
        wide = {number for number, block in enumerate(blocks) if not block.is_narrow}
        loops, counts = _loops([block.follow for block in blocks]), []
        for head, body in loops.items():
            inner = set().union(*(other for first, other in loops.items() if first in body and first != head))
            ways = (body & wide) - inner
            back = [[a for a in ways if b in blocks[a].follow] for b in range(len(blocks))]
            round_ = _reach([block.follow for block in blocks], head, ways) & _reach(back, head, ways)
            counts.append(sum(name in names for number in round_ for name in blocks[number].instructions))
        return sorted(filter(None, counts), reverse=True)


class Block:
    """Instructions that run one after another, and where they go on."""

    def __init__(self) -> None:
        self.instructions: list[str] = []
        self.follow: list[int] = []
        self.is_narrow = False

    def add(self, name: str, is_certain: bool) -> None:
        kind, *parts = name.split(".")
        self.instructions.append(name)
        self.is_narrow |= kind in ("LDG", "STG") and "128" not in parts and is_certain


def _blocks(sass: str) -> list[Block]:
    """The blocks of a kernel and of what it calls."""
    blocks, labels, jumps, ends = [Block()], {}, {}, set()
    for line in sass.splitlines():
        if label := LABEL.match(line):
            blocks.append(Block())
            labels[label[1]] = len(blocks) - 1
        elif found := INSTRUCTION.match(line):
            is_certain = not CONDITION.search(line)
            blocks[-1].add(found[1], is_certain)
            if found[1].split(".")[0] in ("BRA", "EXIT", "RET"):
                if is_certain:
                    ends.add(len(blocks) - 1)
                jumps[len(blocks) - 1] = TARGET.search(line)
                blocks.append(Block())
    for number, block in enumerate(blocks):
        if target := jumps.get(number):
            block.follow.append(labels[target[1]])
        if number not in ends and number + 1 < len(blocks):
            block.follow.append(number + 1)
    return blocks


def _reach(follow: list[list[int]], start: int, within: set[int]) -> set[int]:
    """All that a start leads to, itself included, on ways that do not leave a set."""
    seen, todo = set(), [start] if start in within else []
    while todo:
        number = todo.pop()
        if number not in seen:
            seen.add(number)
            todo += [to for to in follow[number] if to in within]
    return seen


def _loops(follow: list[list[int]]) -> dict[int, set[int]]:
    """The body of each loop, by its first block: all that leads back there, and is not come to but from there."""
    everything = _reach(follow, 0, set(range(len(follow))))
    before: list[list[int]] = [[a for a in everything if b in follow[a]] for b in range(len(follow))]
    loops = {}
    for head in everything:
        behind = everything - _reach(follow, 0, everything - {head})  # what `head` dominates
        if ends := {number for number in behind if head in follow[number]}:
            loops[head] = set().union({head}, *(_reach(before, end, behind - {head}) for end in ends - {head}))
    return loops


def _run(tool: str, *args: str) -> str:
    path = pathfinder.find_nvidia_binary_utility(tool)
    assert path, f"{tool} is not installed"
    done = subprocess.run([path, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _said(log: str, pattern: str) -> int:
    found = re.search(pattern, log)
    return int(found[1]) if found else 0


def cubin(ptx: str, arch: str) -> Cubin:
    """Assemble PTX of one kernel for an architecture."""
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
