"""What CUDA's kernels on elements, probabilities and sums compile to: no local memory, and 16 bytes an access."""

import importlib
import importlib.util
import itertools
import os
import sys
from pathlib import Path

import fusedloss.kernels
import pytest
from cuda_machines import ON_LINUX

if not ON_LINUX:
    pytest.skip("nothing compiles for CUDA here", allow_module_level=True)

from cubins import ARCHITECTURES, cubin

NAME = "kernels_for_cards"
FORMULAS = ["binary_cross_entropy", "binary_log_loss", "mse", "sigmoid", "score_binary"]
CODES = {"bf": 8, "f2": 8, "f4": 4, "f8": 2}
NOTHING, ABSENT = ("", "nowhere"), ("", "absent")


@pytest.fixture(scope="module")
def hardware():
    """The kernels' modules by name, on the hardware's leaves, whatever machine this process simulates."""
    place = Path(fusedloss.kernels.__file__)
    spec = importlib.util.spec_from_file_location(NAME, place, submodule_search_locations=[str(place.parent)])
    package, simulated = importlib.util.module_from_spec(spec), os.environ.pop("FUSEDLOSS_CUDA_SIMULATOR", None)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    try:
        for name in ("cuda_elements", "cuda_probs", "cuda_sums", "cuda_copies", "cuda_tally", "cuda_compile"):
            importlib.import_module(f"{NAME}.{name}")
    finally:
        if simulated is not None:
            os.environ["FUSEDLOSS_CUDA_SIMULATOR"] = simulated
    yield lambda name: sys.modules[f"{NAME}.{name}"]
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


@pytest.fixture
def assembled(hardware):
    """Assemble a kernel for an architecture; it must do without local memory."""

    def build(kernel, cc=(9, 0, "a"), spare=0):
        found = cubin(hardware("cuda_compile").ptx_of(kernel, cc))
        assert found.shared == 0
        assert found.spills <= spare
        assert found.count("LDL") + found.count("STL") <= spare // 4
        return found

    return build


def accesses(found, name):
    """How many accesses there are of 16 bytes, and of less."""
    kinds = {kind: count for kind, count in found.instructions.items() if kind.split(".")[0] == name}
    wide = sum(count for kind, count in kinds.items() if "128" in kind.split("."))
    return wide, sum(kinds.values()) - wide


def element_options(cuda_elements, formula, code, lies="together", **given):
    """Options of a call whose arrays are all given and of the logits' dtype, or of the result's."""
    result = (("f8" if code == "f8" else "f4"), lies)
    operand, aimed = (code, lies), formula != "sigmoid"
    outputs = {"sigmoid": (NOTHING, operand, NOTHING, NOTHING), "score_binary": (result, result, result, ("i1", lies))}
    return cuda_elements.ElementOptions(
        formula, code, CODES[code], 128, (operand, operand if aimed else ABSENT, ABSENT, ABSENT),
        outputs.get(formula, (NOTHING, operand, NOTHING, NOTHING)), aimed and formula != "score_binary", **given,
    )  # fmt: skip


CASES = [*itertools.product(FORMULAS, CODES, [(9, 0, "a")]),
         *itertools.product(FORMULAS[:2], ["bf", "f8"], [(8, 0), (10, 0)])]  # fmt: skip


@pytest.mark.parametrize(("formula", "code", "cc"), CASES)
def test_elements_are_read_and_written_16_bytes_at_a_time(hardware, assembled, formula, code, cc):
    cuda_elements = hardware("cuda_elements")
    found = assembled(cuda_elements.make_elements(element_options(cuda_elements, formula, code)), cc)
    per = 2 if code in ("bf", "f2") else 1  # results take twice the room of 16-bit logits
    read, written = (1 if formula == "sigmoid" else 2), (3 * per if formula == "score_binary" else 1)
    scale = formula not in ("sigmoid", "score_binary")
    loads, stores = accesses(found, "LDG"), accesses(found, "STG")
    turns = loads[0] // read  # of a loop, next to each other
    assert loads == (turns * read, scale)  # the gradient's scale
    # the segment's sum, or the predictions as bytes
    assert stores == (turns * written, turns if formula == "score_binary" else formula != "sigmoid")
    assert found.registers <= 112


@pytest.mark.parametrize("formula", ["binary_cross_entropy", "binary_log_loss"])
def test_elements_however_they_lie(hardware, assembled, formula):
    cuda_elements = hardware("cuda_elements")
    options = element_options(cuda_elements, formula, "bf", "apart", ragged=True)
    found = assembled(cuda_elements.make_elements(options))
    assert accesses(found, "LDG")[0] == accesses(found, "STG")[0] == 0
    whole = element_options(cuda_elements, formula, "bf", ragged=True)
    assert accesses(assembled(cuda_elements.make_elements(whole)), "LDG")[0] == 2


@pytest.mark.parametrize("cc", ARCHITECTURES, ids=ARCHITECTURES.get)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("code", "target", "lanes"), [("bf", "i8", 16), ("f4", "f4", 256)])
def test_probabilities(hardware, assembled, code, target, lanes, normalize, cc):
    cuda_probs = hardware("cuda_probs")
    options = cuda_probs.ProbOptions(code, target, target[0] == "f", normalize, True, True, lanes)
    # but for sm_90, the assembler puts a register or two by where it calls the slow path of a division
    assert assembled(cuda_probs.make_probs(options), cc, 0 if cc[0] == 9 else 24).registers <= 96


def test_sums_copies_and_tallies(hardware, assembled):
    sums, copies, tally = (hardware(name) for name in ("cuda_sums", "cuda_copies", "cuda_tally"))
    for finish in ("", "f4"):
        assembled(sums.make_total(sums.SumOptions("f4", finish=finish)))
    assembled(sums.make_weights(sums.SumOptions("f4", "i8", True, True, "weight")))
    assembled(sums.make_check("f8"))
    for source, target, width in (("f4", "f4", 4), ("f8", "bf", 8), ("", "i8", 2)):
        found = assembled(copies.make_copy(copies.CopyOptions(source, target, 1, width)))
        assert accesses(found, "LDG")[0] == (width * int(source[1]) // 16 if source else 0)
        assert accesses(found, "STG")[0] == 1
    assembled(copies.make_copy(copies.CopyOptions("i4", "i8", 8)))
    options = tally.TallyOptions("f4", "i8", True, 128)
    assembled(tally.make_tally(options))
    assembled(tally.make_tally_binary(tally.TallyOptions("f4", "b1", True, 128, 32)))
    assembled(tally.make_tally(tally.TallyOptions("f4", "u1", False, 1, alone=True)))
