"""PyTorch files written by hand, opcode by opcode: what is read, what is refused, what is damaged."""

import io
import os
import pickle
import re
import sys
import zipfile

import numpy as np
import pytest
from pytorch_files import ORDERED_DICT, state_dict, stream_file, tensor, text, zip_file

from ktl.errors import UserError
from ktl.models.pytorch_weights import STORAGE_TYPES, load_state_dict

FORMATS = [stream_file, zip_file]
RAMP = np.arange(24, dtype=np.float32)


@pytest.fixture
def load(tmp_path):
    def load_bytes(data: bytes):
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        return load_state_dict(path)

    return load_bytes


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_tensors_of_one_storage(load, file_format, order):
    cube = RAMP.reshape(2, 3, 4)
    expected = {
        "whole": ((0, (2, 3, 4), (12, 4, 1)), cube),
        "transposed": ((0, (4, 3, 2), (1, 4, 12)), cube.transpose(2, 1, 0)),
        "slice": ((13, (3, 2), (4, 2)), cube[1, :, 1::2]),
        "expanded": ((5, (3, 2), (0, 1)), np.broadcast_to(RAMP[5:7], (3, 2))),
        "scalar": ((23, (), ()), np.array(23, np.float32)),
        "empty": ((24, (0, 3), (3, 1)), np.zeros((0, 3), np.float32)),
    }
    description = state_dict(**{name: tensor("7", 24, *place) for name, (place, _) in expected.items()})
    loaded = load(file_format(description, {"7": RAMP}, order))
    assert list(loaded) == list(expected)
    for name, (_, value) in expected.items():
        assert value.size == 0 or not loaded[name].flags.writeable
        np.testing.assert_array_equal(loaded[name], value, err_msg=name, strict=True)


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_storage_type_and_parameters(load, file_format):
    storages = {name: np.array([0, 1, 100]).astype(code) for name, code in STORAGE_TYPES.items()}
    tensors = {name: tensor(name, 3, 0, (3,), (1,), name) for name in storages}
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + tensors["HalfStorage"] + b"\x88" + ORDERED_DICT + b"tR"
    loaded = load(file_format(state_dict(**tensors, parameter=parameter), storages))
    for name, value in {**storages, "parameter": storages["HalfStorage"]}.items():
        np.testing.assert_array_equal(loaded[name], value, strict=True)


class Payload:
    """Runs a shell command when an ordinary unpickler opens it."""

    def __init__(self, path):
        self.command = f"echo run > {path}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "wrap", [lambda data: data, lambda data: stream_file(data, {}), lambda data: zip_file(data, {})]
)
def test_code_in_a_pickle_is_refused_and_not_run(load, tmp_path, wrap, protocol):
    trace = tmp_path / "trace"
    payload = pickle.dumps({"weight": Payload(trace)}, protocol)
    with pytest.raises(UserError, match=r"asks for '\w+\.system'; it was not run \(in .*weights.pth\)$"):
        load(wrap(payload))
    assert not trace.exists()
    pickle.loads(payload)
    assert trace.exists(), "the payload is harmless, so this test proves nothing"


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "torch.nn.modules.linear Linear",
        "torch BFloat16Storage",
        "torch._utils _rebuild_tensor_v2.__globals__",
        "ktl.models.pytorch_weights load_state_dict",
    ],
)
def test_other_names_are_refused(load, name):
    module, attribute = name.split()
    description = b"\x80\x04}" + text("weight") + text(module) + text(attribute) + b"\x93s."
    with pytest.raises(UserError, match=f"asks for '{re.escape(module + '.' + attribute)}'"):
        load(stream_file(description, {}))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((24, (1,), (1,)), "lie inside its 24 numbers"),
        ((1, (2, 3, 4), (12, 4, 1)), "lie inside its 24 numbers"),
        ((0, (2,), (10**12,)), "lie inside its 24 numbers"),
        ((23, (2,), (-1,)), "whole numbers"),
        ((-1, (2,), (1,)), "whole numbers"),
        ((0, (-2,), (1,)), "whole numbers"),
        ((0, (2, 2), (1,)), "whole numbers"),
    ],
)
@pytest.mark.parametrize("file_format", FORMATS)
def test_memory_outside_the_storage_is_not_read(load, file_format, place, message):
    with pytest.raises(UserError, match=message):
        load(file_format(state_dict(weight=tensor("0", 24, *place)), {"0": RAMP}))


@pytest.mark.parametrize("file_format", FORMATS)
def test_storage_of_another_size(load, file_format):
    description = state_dict(weight=tensor("0", 25, 0, (24,), (1,)))
    with pytest.raises(UserError, match=r"Expected 25 elements for 'weight'\. Received: 24"):
        load(file_format(description, {"0": RAMP}))


@pytest.mark.parametrize("file_format", FORMATS)
def test_other_objects(load, file_format):
    for description in (pickle.dumps([1, 2], 2), state_dict(weight=b"I1\n"), state_dict(weight=b"}")):
        with pytest.raises(UserError, match="Expected a state dict"):
            load(file_format(description, {}))
    view = b"(" + text("0") + b"I0\nI2\nt"
    data = file_format(state_dict(weight=tensor("0", 24, 0, (2,), (1,), view=view)), {"0": RAMP})
    with pytest.raises(UserError, match="plain storage"):
        load(data)


def test_compressed_records_are_refused(load):
    with pytest.raises(UserError, match="compressed zip archive"):
        load(zip_file(state_dict(), {}, compression=zipfile.ZIP_DEFLATED))


def test_zip_of_something_else(load):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photo.jpg", b"")
    with pytest.raises(UserError, match=r"data\.pkl"):
        load(buffer.getvalue())


@pytest.mark.parametrize("store", [b"r\xff\xff\xff\x7f", b"p2000000000\n"])
def test_huge_store_index_takes_no_memory(load, store):
    with pytest.raises(UserError, match="damaged pickle"):
        load(stream_file(b"\x80\x02}" + store + b".", {}))


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_truncation(load, file_format):
    data = file_format(state_dict(weight=tensor("0", 24, 0, (2, 3, 4), (12, 4, 1))), {"0": RAMP})
    assert load(data)["weight"].shape == (2, 3, 4)
    for length in range(len(data)):
        with pytest.raises(UserError) as caught:
            load(data[:length])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file_format", FORMATS)
def test_damaged_bytes_never_raise_anything_else(load, file_format):
    data = file_format(state_dict(weight=tensor("0", 24, 0, (2, 3, 4), (12, 4, 1))), {"0": RAMP})
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(1000):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] ^= 1 << random.integers(8)
        try:
            load(bytes(damaged))
        except UserError:
            refused += 1
    assert refused > 200  # the others changed a number, a name, or what nobody reads


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(UserError, match="Expected a readable PyTorch state dict"):
            load_state_dict(path)


def test_torch_is_not_imported(load):
    load(stream_file(state_dict(weight=tensor("0", 24, 0, (24,), (1,))), {"0": RAMP}))
    assert "torch" not in sys.modules
