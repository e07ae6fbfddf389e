"""PyTorch state dicts as numpy arrays, read without PyTorch and without trusting the file.

A `.pth` file is a pickle, and a pickle is a program: whoever wrote it chooses which functions run when it is opened.
The unpickler here resolves the few names that tensors are made of, to inert stand-ins, and refuses every other name.

Reference: `torch.load` and `torch.save` of PyTorch 1.x (one stream of pickles) and 2.x (a zip archive of records).
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ktl.errors import UserError, reason_of
from ktl.files import read_regular

# Storage class of PyTorch -> numpy type code, without the byte order: the file states that.
STORAGE_TYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
ByteOrder = Literal["<", ">"]

_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_VERSION = 1001
_ZIP_MAGIC = b"PK\x03\x04"


def load_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch state dict, in the order of the file.

    Args:
        path: a file that `torch.save(model.state_dict(), path)` wrote, in the stream or in the zip format.

    Returns:
        Tensor name -> read-only array with the tensor's own shape and type; a strided tensor stays a view.

    Raises:
        UserError: the file is missing, damaged, holds anything else than named tensors, or names a function or
            class that tensors do not need. Nothing that the file names is ever imported or called.
    """
    path = Path(path)
    try:
        data = read_regular(path)
    except OSError as error:
        raise UserError(f"Expected a readable PyTorch state dict. Received: {path} ({error.strerror})") from error
    read = _read_zip if data.startswith(_ZIP_MAGIC) else _read_stream
    try:
        return _rebuild_all(*read(data))
    except UserError as error:
        raise UserError(f"{error} (in {path})") from error
    except Exception as error:
        # Damaged bytes make pickle and zipfile raise almost any type, as the pickle documentation warns.
        detail = f"{type(error).__name__}: {reason_of(error)}"
        raise UserError(
            f"Expected a PyTorch state dict. Received: {path}, damaged or of another format ({detail})"
        ) from error


class _Storage(NamedTuple):
    """A run of numbers that tensors share: where its bytes are, and how to read them."""

    key: str
    type_code: str
    size: int


class _Tensor(NamedTuple):
    """One tensor as the pickle describes it; offset and strides count elements, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StorageType(NamedTuple):
    """What a storage class becomes: data, so that a pickle can neither call it nor change it."""

    code: str


def _tensor(storage, offset, shape, strides, *_autograd) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor, *_autograd) -> _Tensor:
    return tensor


# A pickle can call these and set attributes on them, so each is a pure function, a tuple or a built-in class.
_ADMITTED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): _StorageType(code) for name, code in STORAGE_TYPES.items()},
}


class _TensorUnpickler(pickle.Unpickler):
    """Builds descriptions of tensors and refuses to look up anything else."""

    def find_class(self, module: str, name: str):
        try:
            return _ADMITTED[module, name]
        except KeyError:
            asked = ascii(f"{module}.{name}")  # the file chose these characters: line ends, terminal codes
            raise UserError(
                f"Expected tensors only. Received: a pickle that asks for {asked}; it was not run"
            ) from None

    def persistent_load(self, record: tuple) -> _Storage:
        kind, storage_type, key, _device, size, *view = record
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(view):
            raise UserError("Expected every tensor to have a plain storage. Received: another kind")
        return _Storage(key, storage_type.code, size)


def _unpickle(stream: io.BytesIO):
    """Reads one pickle and leaves the stream behind it."""
    start = stream.tell()
    for count, (opcode, argument, _position) in enumerate(pickletools.genops(stream)):
        # Python makes room for as many objects as a store index says: one wrong bit there would take all memory.
        if opcode.name in ("PUT", "LONG_BINPUT") and isinstance(argument, int) and argument > count:
            raise UserError("Expected a PyTorch state dict. Received: a damaged pickle")
    stream.seek(start)
    return _TensorUnpickler(stream).load()


def _read_zip(data: bytes) -> tuple[dict, dict[str, bytes], ByteOrder]:
    """The zip format: `<root>/data.pkl` describes the tensors, `<root>/data/<key>` is the content of one storage."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        root = next((name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")), None)
        if root is None:
            raise UserError("Expected a zip archive with `data.pkl`, as torch.save writes it")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            # torch.save never compresses; a compressed record could swell to any size in memory.
            raise UserError("Expected uncompressed records. Received: a compressed zip archive")
        tensors = _unpickle(io.BytesIO(archive.read(f"{root}data.pkl")))
        big = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"
        storages = {storage.key: archive.read(f"{root}data/{storage.key}") for storage in _storages(tensors)}
    return tensors, storages, ">" if big else "<"


def _read_stream(data: bytes) -> tuple[dict, dict[str, bytes], ByteOrder]:
    """The stream format: pickles of magic, version, platform, tensors and keys; then each storage's size and bytes."""
    stream = io.BytesIO(data)
    magic, version, platform, tensors, keys = (_unpickle(stream) for _ in range(5))
    if (magic, version) != (_STREAM_MAGIC, _STREAM_VERSION):
        raise UserError("Expected the header that torch.save writes. Received: another kind of pickle")
    order = "<" if platform["little_endian"] else ">"
    described = {storage.key: storage for storage in _storages(tensors)}
    storages = {}
    for key in keys:
        size = int(np.frombuffer(stream.read(8), f"{order}i8")[0])
        item_bytes = np.dtype(described[key].type_code).itemsize
        storages[key] = stream.read(max(size, 0) * item_bytes)
    return tensors, storages, order


def _storages(tensors) -> list[_Storage]:
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, _Tensor) for name, tensor in dict.items(tensors)
    ):
        raise UserError("Expected a state dict: tensor names with their tensors. Received: another object")
    return [tensor.storage for tensor in dict.values(tensors)]


def _rebuild_all(tensors, storages: dict[str, bytes], order: ByteOrder) -> dict[str, np.ndarray]:
    return {name: _rebuild(name, tensor, storages[tensor.storage.key], order) for name, tensor in dict.items(tensors)}


def _rebuild(name: str, tensor: _Tensor, content: bytes, order: ByteOrder) -> np.ndarray:
    """The array that a description stands for, after proving that it lies inside its storage."""
    dtype = np.dtype(tensor.storage.type_code)
    if len(content) != tensor.storage.size * dtype.itemsize:
        raise UserError(
            f"Expected {tensor.storage.size} elements for {name!a}. Received: {len(content) // dtype.itemsize}; "
            "the file is cut off or damaged"
        )
    numbers = (tensor.offset, *tensor.shape, *tensor.strides)
    if len(tensor.shape) != len(tensor.strides) or not all(type(n) is int and n >= 0 for n in numbers):
        raise UserError(f"Expected {name!a} to have a shape and strides of whole numbers. Received: something else")
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    empty = math.prod(tensor.shape) == 0
    # as_strided does not look at bounds: without this check a crafted file would read foreign memory.
    if not empty and tensor.offset + reach >= tensor.storage.size:
        raise UserError(
            f"Expected {name!a} to lie inside its {tensor.storage.size} numbers. "
            f"Received: offset {tensor.offset}, shape {tensor.shape}, strides {tensor.strides}"
        )
    if empty:
        return np.empty(tensor.shape, dtype)
    return np.lib.stride_tricks.as_strided(
        np.frombuffer(content, dtype.newbyteorder(order)).astype(dtype, copy=False)[tensor.offset :],
        tensor.shape,
        [stride * dtype.itemsize for stride in tensor.strides],
        writeable=False,
    )
