"""What CUDA's kernels on elements, probabilities and sums compile to: no local memory, and 16 bytes an access."""

import importlib
import importlib.util
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
    """Assemble a kernel for each architecture; it must do without local memory."""

    def build(kernel):
        ptx = hardware("cuda_compile").ptx_of(kernel)
        for arch in ARCHITECTURES:
            found = cubin(ptx, arch)
            assert (found.stack, found.spills, found.shared) == (0, 0, 0)
            assert not found.count("LDL")
            assert not found.count("STL")
            yield found

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


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("formula", FORMULAS)
def test_elements_are_read_and_written_16_bytes_at_a_time(hardware, assembled, formula, code):
    cuda_elements = hardware("cuda_elements")
    per = 2 if code in ("bf", "f2") else 1  # results take twice the room of 16-bit logits
    read, written = (1 if formula == "sigmoid" else 2), (3 * per if formula == "score_binary" else 1)
    scale = formula not in ("sigmoid", "score_binary")
    for found in assembled(cuda_elements.make_elements(element_options(cuda_elements, formula, code))):
        loads, stores = accesses(found, "LDG"), accesses(found, "STG")
        turns = loads[0] // read  # of a loop, next to each other
        assert loads == (turns * read, scale)  # the gradient's scale
        # the segment's sum, or the predictions as bytes
        assert stores == (turns * written, turns if formula == "score_binary" else formula != "sigmoid")
        assert found.registers <= 128


@pytest.mark.parametrize("formula", ["binary_cross_entropy", "binary_log_loss"])
@pytest.mark.parametrize("lies", ["together", "apart"])
def test_elements_however_they_lie(hardware, assembled, formula, lies):
    cuda_elements = hardware("cuda_elements")
    options = element_options(cuda_elements, formula, "bf", lies, ragged=True)
    for found in assembled(cuda_elements.make_elements(options)):
        assert (accesses(found, "LDG")[0] > 0) == (accesses(found, "STG")[0] > 0) == (lies == "together")


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("code", "target", "lanes"), [("bf", "i8", 16), ("f4", "f4", 256), ("f8", "f8", 1)])
def test_probabilities(hardware, assembled, code, target, lanes, normalize):
    cuda_probs = hardware("cuda_probs")
    options = cuda_probs.ProbOptions(code, target, target[0] == "f", normalize, True, True, lanes)
    for found in assembled(cuda_probs.make_probs(options)):
        assert found.registers <= 128


def test_sums(hardware, assembled):
    sums = hardware("cuda_sums")
    kernels = [sums.make_total(sums.SumOptions("f4", finish=finish)) for finish in ("", "f4", "weight")]
    kernels.append(sums.make_weights(sums.SumOptions("f4", "i8", True, True, "weight")))
    for kernel in (*kernels, sums.make_check("f8")):
        assert len(list(assembled(kernel))) == len(ARCHITECTURES)


@pytest.mark.parametrize(
    ("source", "target", "width"), [("f4", "f4", 4), ("f8", "bf", 8), ("", "i8", 2), ("i4", "i8", 1)]
)
def test_copies(hardware, assembled, source, target, width):
    copies = hardware("cuda_copies")
    for found in assembled(copies.make_copy(copies.CopyOptions(source, target, 1 if width > 1 else 8, width))):
        assert accesses(found, "LDG")[0] == (width * int(source[1]) // 16 if source else 0)
        assert accesses(found, "STG")[0] == (width > 1)


def test_tallies(hardware, assembled):
    tally = hardware("cuda_tally")
    options = tally.TallyOptions("f4", "i8", True, 128)
    kernels = tally.make_tally(options), tally.make_tally(tally.TallyOptions("f4", "u1", False, 1, alone=True))
    for kernel in (*kernels, tally.make_tally_binary(tally.TallyOptions("f4", "b1", True, 128, 32))):
        assert len(list(assembled(kernel))) == len(ARCHITECTURES)
