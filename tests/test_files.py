"""Arrays read block by block, and results that replace a file whole or not at all."""

import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from fusedloss import FileError
from fusedloss.files import ArrayFile, open_array
from fusedloss.results import replacing, write_columns

ROWS, CLASSES = 37, 5


def whole(file: ArrayFile, rows: int = 10) -> np.ndarray:
    """Everything, read in blocks along the first axis."""
    starts = range(0, file.shape[0], rows)
    rest = [slice(0, n) for n in file.shape[1:]]
    indices = [(slice(start, min(start + rows, file.shape[0])), *rest) for start in starts]
    return np.concatenate([np.array(block) for block in file.blocks(indices)])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def logits(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((ROWS, CLASSES)).astype(np.float32)


class TestReading:
    @pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f2", "<u2", "<i8", "?"])
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("save", [None, np.savez, np.savez_compressed])
    def test_every_container(self, tmp_path: Path, logits, dtype, order, save):
        array = np.asarray(logits * 3, order=order).astype(dtype, order=order)
        path = tmp_path / ("a.npy" if save is None else "a.npz")
        np.save(path, array) if save is None else save(path, other=np.zeros(3), logits=array)
        file = open_array(str(path), ("logits",))
        assert (file.shape, file.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(whole(file), array)
        np.testing.assert_array_equal(whole(file, 1), array)

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_blocks_that_are_not_in_file_order(self, tmp_path: Path, rng, save):
        array = rng.standard_normal((4, 3, 50))
        save(tmp_path / "a.npz", array)
        file = open_array(str(tmp_path / "a.npz"), ())
        indices = [(slice(0, 4), slice(0, 3), slice(lo, lo + 10)) for lo in range(0, 50, 10)]
        np.testing.assert_array_equal(np.concatenate(list(file.blocks(indices)), axis=2), array)

    def test_blocks_are_aligned_and_read_only_or_copies(self, tmp_path: Path, logits):
        for name in ("a", "ab", "abc", "abcd"):
            np.savez(tmp_path / "a.npz", **{name: logits.astype(np.float64)})
            file = open_array(str(tmp_path / "a.npz"), ())
            blocks = list(file.blocks([(slice(0, ROWS), slice(0, CLASSES))]))
            assert blocks[0].flags.aligned

    def test_empty_arrays_and_scalars(self, tmp_path: Path):
        for array in (np.zeros((0, 5), np.float32), np.zeros((5, 0), np.float32), np.float32(3)):
            np.save(tmp_path / "a.npy", array)
            file = open_array(str(tmp_path / "a.npy"), ())
            index = tuple(slice(0, n) for n in file.shape)
            np.testing.assert_array_equal(next(file.blocks([index])), array)

    def test_format_version_2(self, tmp_path: Path, logits):
        with (tmp_path / "a.npy").open("wb") as stream:
            np.lib.format.write_array(stream, logits, version=(2, 0))
        np.testing.assert_array_equal(whole(open_array(str(tmp_path / "a.npy"), ())), logits)

    def test_names_in_archives(self, tmp_path: Path):
        path = str(tmp_path / "a.npz")
        np.savez(path, target=np.arange(2), logits=np.arange(3.0), other=np.arange(4))
        assert open_array(path, ("logits",)).shape == (3,)
        assert open_array(path, ("targets", "target")).shape == (2,)
        assert open_array(f"{path}::other", ("logits",)).shape == (4,)
        with pytest.raises(FileError, match="holds 'target', 'logits', 'other', expected 'labels'"):
            open_array(path, ("labels",))
        with pytest.raises(FileError, match="expected 'nothing'"):
            open_array(f"{path}::nothing", ("logits",))
        np.savez(path, one=np.arange(5))
        assert open_array(path, ("logits",)).shape == (5,)
        with pytest.raises(FileError, match="expected 'nothing'"):
            open_array(f"{path}::nothing", ("logits",))
        np.savez(path)
        with pytest.raises(FileError, match="holds no array"):
            open_array(path, ("logits",))


class TestBadFiles:
    def test_missing(self, tmp_path: Path):
        with pytest.raises(FileError, match=r"none\.npy: cannot be read: No such file"):
            open_array(str(tmp_path / "none.npy"), ())
        with pytest.raises(FileError, match="cannot be read: Is a directory"):
            open_array(str(tmp_path), ())

    @pytest.mark.parametrize("save", [None, np.savez, np.savez_compressed])
    def test_pickled_objects_are_refused(self, tmp_path: Path, save):
        array, path = np.array([{}, []], dtype=object), tmp_path / "a.npz"
        if save is None:
            path = tmp_path / "a.npy"
            np.save(path, array, allow_pickle=True)
        else:
            save(path, array)
        with pytest.raises(FileError, match="pickled Python objects"):
            open_array(str(path), ())

    def test_a_bare_pickle_is_refused(self, tmp_path: Path):
        (tmp_path / "a.npy").write_bytes(pickle.dumps([1, 2]))
        with pytest.raises(FileError, match="is not a .npy array"):
            open_array(str(tmp_path / "a.npy"), ())

    def test_a_name_in_what_is_no_archive(self, tmp_path: Path, logits):
        np.save(tmp_path / "a.npy", logits)
        with pytest.raises(FileError, match="is not an .npz archive"):
            open_array(f"{tmp_path / 'a.npy'}::logits", ())

    @pytest.mark.parametrize("size", [0, 1, 5, 9, 40, 127, 128, 500])
    def test_truncated_npy(self, tmp_path: Path, logits, size):
        np.save(tmp_path / "a.npy", logits)
        data = (tmp_path / "a.npy").read_bytes()
        (tmp_path / "a.npy").write_bytes(data[:size])
        with pytest.raises(FileError, match="truncated|is not a .npy array"):
            open_array(str(tmp_path / "a.npy"), ())

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_any_damage_is_found_or_harmless(self, tmp_path: Path, logits, rng, save):
        path = tmp_path / "a.npz"
        save(path, logits)
        data = path.read_bytes()
        for size in range(0, len(data), 7):
            path.write_bytes(data[:size])
            with pytest.raises(FileError):
                whole(open_array(str(path), ()))
        for _ in range(200):
            damaged = bytearray(data)
            damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            with suppress(FileError):
                whole(open_array(str(path), ()))

    def test_damaged_headers(self, tmp_path: Path, logits, rng):
        path = tmp_path / "a.npy"
        np.save(path, logits)
        data = path.read_bytes()
        for _ in range(500):
            damaged = bytearray(data)
            damaged[rng.integers(128)] = rng.integers(256)
            path.write_bytes(damaged)
            with suppress(FileError):
                open_array(str(path), ())

    def test_truncated_while_it_is_read(self, tmp_path: Path, logits):
        np.save(tmp_path / "a.npy", logits)
        file = open_array(str(tmp_path / "a.npy"), ())
        os.truncate(tmp_path / "a.npy", 200)
        with pytest.raises(FileError, match="truncated"):
            whole(file)

    def test_encrypted_member(self, tmp_path: Path, logits):
        np.savez(tmp_path / "a.npz", logits)
        data = bytearray((tmp_path / "a.npz").read_bytes())
        data[6] |= 1
        data[data.rindex(b"PK\x01\x02") + 8] |= 1
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(FileError, match="encrypted"):
            open_array(str(tmp_path / "a.npz"), ())


COLUMNS = {"nll": np.dtype(np.float32), "rank": np.dtype(np.int64)}


class TestWriting:
    @pytest.mark.parametrize("suffix", ["npz", "npy"])
    @pytest.mark.parametrize("shape", [(30,), (5, 6), ()])
    def test_columns(self, tmp_path: Path, rng, suffix, shape):
        path = tmp_path / f"out.{suffix}"
        nll, rank = rng.random(shape, np.float32), rng.integers(0, 9, shape)
        with write_columns(str(path), shape, COLUMNS) as append:
            for lo in range(0, nll.size, 7):
                append({"nll": np.ravel(nll)[lo : lo + 7], "rank": np.ravel(rank)[lo : lo + 7]})
            assert not path.exists()
        result = np.load(path, allow_pickle=False)
        assert result["nll"].dtype == np.float32
        np.testing.assert_array_equal(result["nll"], nll)
        np.testing.assert_array_equal(result["rank"], rank)
        assert names(tmp_path) == {path.name}

    def test_equal_results_make_equal_files(self, tmp_path: Path):
        contents = []
        for name in ("a.npz", "b.npz"):
            with write_columns(str(tmp_path / name), (2,), COLUMNS) as append:
                append({"nll": np.zeros(2), "rank": np.ones(2)})
            contents.append((tmp_path / name).read_bytes())
        assert contents[0] == contents[1]

    def test_an_archive_that_others_read(self, tmp_path: Path):
        with write_columns(str(tmp_path / "a.npz"), (2,), COLUMNS) as append:
            append({"nll": np.zeros(2), "rank": np.ones(2)})
        with zipfile.ZipFile(tmp_path / "a.npz") as archive:
            assert archive.testzip() is None
            assert archive.namelist() == ["nll.npy", "rank.npy"]

    @pytest.mark.parametrize("suffix", ["npz", "npy"])
    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
    def test_a_failure_leaves_the_older_file(self, tmp_path: Path, suffix, error):
        path = tmp_path / f"out.{suffix}"
        path.write_text("older")
        with pytest.raises(error), write_columns(str(path), (4,), COLUMNS) as append:
            append({"nll": np.zeros(2), "rank": np.zeros(2, int)})
            raise error
        assert path.read_text() == "older"
        assert names(tmp_path) == {path.name}

    def test_unwritable(self, tmp_path: Path):
        (tmp_path / "file").write_text("")
        (tmp_path / "folder").mkdir()
        reasons = {"no/a.npy": "No such file", "file/a.npy": "Not a directory", "folder": "Is a directory"}
        for path, reason in reasons.items():
            with pytest.raises(FileError, match=f"cannot be written: {reason}"), replacing(str(tmp_path / path)):
                pass
        assert names(tmp_path) == {"file", "folder"}

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    def test_a_full_disk(self, tmp_path: Path):
        path = tmp_path / "out.npy"
        message = r"out\.npy: cannot be written: No space left on device"
        with pytest.raises(FileError, match=message), replacing(str(path)) as file:
            with Path("/dev/full").open("wb") as full:
                os.dup2(full.fileno(), file.fileno())
            file.write(b"x" * 100)
        assert names(tmp_path) == set()

    def test_a_link_stays_a_link(self, tmp_path: Path):
        (tmp_path / "real.npy").write_text("older")
        (tmp_path / "link.npy").symlink_to("real.npy")
        with replacing(str(tmp_path / "link.npy")) as file:
            file.write(b"newer")
        assert (tmp_path / "link.npy").is_symlink()
        assert (tmp_path / "real.npy").read_text() == "newer"
