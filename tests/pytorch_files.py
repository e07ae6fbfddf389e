"""PyTorch state dicts as `torch.save` writes them, put together opcode by opcode, without PyTorch."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def numbers(values) -> bytes:
    return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"


def tensor(key, size, offset, shape, strides, storage_type="FloatStorage", view=b"N") -> bytes:
    """Opcodes of one tensor over the storage `key` of `size` numbers."""
    storage = b"(" + text("storage") + f"ctorch\n{storage_type}\n".encode() + text(key) + text("cpu")
    storage += b"I%d\n" % size + view + b"tQ"
    arguments = storage + b"I%d\n" % offset + numbers(shape) + numbers(strides) + b"\x89" + ORDERED_DICT
    return TENSOR + b"(" + arguments + b"tR"


def state_dict(**tensors: bytes) -> bytes:
    """Opcodes of a dict with its `_metadata` attribute, as PyTorch's modules give it out."""
    items = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02" + ORDERED_DICT + b"(" + items + b"u}" + text("_metadata") + b"}sb."


def stream_file(description: bytes, storages: dict[str, np.ndarray], order="<") -> bytes:
    header = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": order == "<", "type_sizes": {}})
    data = b"".join(pickle.dumps(part, 2) for part in header) + description + pickle.dumps(list(storages), 2)
    for storage in storages.values():
        data += storage.size.to_bytes(8, {"<": "little", ">": "big"}[order])
        data += storage.astype(storage.dtype.newbyteorder(order)).tobytes()
    return data


def zip_file(description: bytes, storages: dict[str, np.ndarray], order="<", compression=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("net/data.pkl", description)
        archive.writestr("net/byteorder", {"<": "little", ">": "big"}[order])
        for key, storage in storages.items():
            archive.writestr(f"net/data/{key}", storage.astype(storage.dtype.newbyteorder(order)).tobytes())
    return buffer.getvalue()


def write_state_dict(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """A file of these float32 and int64 arrays, each with a storage of its own."""
    storage_types = {"float32": "FloatStorage", "int64": "LongStorage"}
    tensors = {
        name: tensor(name, a.size, 0, a.shape, np.array(a.strides) // a.itemsize, storage_types[a.dtype.name])
        for name, a in arrays.items()
    }
    path.write_bytes(zip_file(state_dict(**tensors), {name: array.reshape(-1) for name, array in arrays.items()}))
    return path
