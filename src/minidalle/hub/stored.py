"""Arrays that stay in their file until they are asked for, so that a checkpoint is never in memory twice.

`stored_msgpack` and `stored_safetensors` read names, shapes and types alone; `np.asarray` of a `Stored` reads its values.
"""

import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .looks import describe

SAFETENSORS_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
NUMBERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
ARRAY_TYPES = (1, 3)  # flax.serialization's msgpack extensions for an array and for a NumPy scalar


@dataclass(frozen=True)
class Stored:
    """An array in a file: `shape`, the name of its type, and the pieces (offset, bytes) that it lies in."""

    file: Path
    type_name: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[int, int], ...]

    @property
    def nbytes(self) -> int:
        return sum(size for _, size in self.pieces)

    @property
    def dtype(self) -> np.dtype:
        if self.type_name == "bfloat16":
            import ml_dtypes

            return np.dtype(ml_dtypes.bfloat16)
        return np.dtype(self.type_name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        data = np.empty(self.nbytes, np.uint8)
        with self.file.open("rb") as file:
            start = 0
            for offset, size in self.pieces:
                file.seek(offset)
                start += file.readinto(memoryview(data)[start : start + size])
        if start != self.nbytes:
            raise ValueError(f"{self.file} became shorter while it was read; copy or download it again")
        array = data.view(self.dtype).reshape(self.shape)
        return array if dtype is None else array.astype(dtype, copy=False)


@dataclass(frozen=True)
class Derived:
    """An array that is made from others when it is asked for."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.make()
        return array if dtype is None else array.astype(dtype, copy=False)


def stacked(arrays: Sequence[Any]) -> Derived:
    """Arrays of one shape along a new first axis, read one after the other when asked for."""
    first = arrays[0]

    def make() -> np.ndarray:
        whole = np.empty((len(arrays), *first.shape), first.dtype)
        for index, array in enumerate(arrays):
            whole[index] = np.asarray(array)
        return whole

    return Derived((len(arrays), *first.shape), first.dtype, make)


def transposed(array: Any) -> Derived:
    """A matrix with its axes exchanged, read when asked for."""
    return Derived(tuple(array.shape)[::-1], array.dtype, lambda: np.asarray(array).T)


def stored_safetensors(path: Path) -> dict[str, Stored]:
    """The arrays of a safetensors file by name.

    Raises:
        FileNotFoundError, ValueError: the file is missing, or it is not a whole safetensors file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; the checkpoint is not complete")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = struct.unpack("<Q", _take(file, 8))[0]
            if length > size - 8:
                raise ValueError("its header is longer than the file")
            header = json.loads(_take(file, length))
        header.pop("__metadata__", None)
        base, end, arrays = 8 + length, 8 + length, {}
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            arrays[name] = Stored(
                path, SAFETENSORS_TYPES[entry["dtype"]], tuple(entry["shape"]), ((base + first, last - first),)
            )
            _check_size(name, arrays[name])
            end = max(end, base + last)
        if size != end:
            raise ValueError(f"it has {size} bytes where its header promises {end}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is truncated or corrupt, not a whole safetensors file ({describe(path)}: {error}); copy or download "
            "it again"
        ) from error
    return arrays


def stored_msgpack(path: Path, separator: str = "/") -> dict[str, Stored]:
    """The arrays of a file of `flax.serialization`, by their names in the tree joined with `separator`.

    Raises:
        FileNotFoundError, ValueError: the file is missing, or it is cut off, damaged or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; an original checkpoint folder holds it")
    arrays: dict[str, Stored] = {}

    def collect(name: str, node: Any) -> None:
        if isinstance(node, dict) and "__msgpack_chunked_array__" in node:  # arrays beyond a gigabyte lie in pieces
            chunks = [node["chunks"][str(index)] for index in range(len(node["chunks"]))]
            shape = tuple(node["shape"][str(index)] for index in range(len(node["shape"])))
            pieces = tuple(piece for chunk in chunks for piece in chunk.pieces)
            node = Stored(path, chunks[0].type_name, shape, pieces)
        if isinstance(node, Stored):
            _check_size(name, node)
            arrays[name] = node
        elif isinstance(node, dict):
            for key, value in node.items():
                collect(f"{name}{separator}{key}" if name else str(key), value)
        else:
            raise ValueError(f"{name or 'the whole file'} is no array")

    try:
        with path.open("rb") as file:
            collect("", _read_value(file, path))
            if file.read(1):
                raise ValueError("something follows the weights")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or cut off, download it again ({describe(path)}: {error})") from error
    return arrays


def _read_value(file: BinaryIO, path: Path) -> Any:
    """One value of msgpack; arrays as `Stored`, other binary data as its place (offset, bytes)."""
    head = _take(file, 1)[0]
    if head < 0x80 or head >= 0xE0:
        return head if head < 0x80 else head - 0x100
    if head in CONSTANTS:
        return CONSTANTS[head]
    if head in NUMBERS:
        return _number(file, NUMBERS[head])
    if head < 0x90 or head in (0xDE, 0xDF):
        entries = head & 0x0F if head < 0x90 else _number(file, ">H" if head == 0xDE else ">I")
        return {_read_value(file, path): _read_value(file, path) for _ in range(entries)}
    if head < 0xA0 or head in (0xDC, 0xDD):
        entries = head & 0x0F if head < 0xA0 else _number(file, ">H" if head == 0xDC else ">I")
        return [_read_value(file, path) for _ in range(entries)]
    if head < 0xC0 or 0xD9 <= head <= 0xDB:
        size = head & 0x1F if head < 0xC0 else _number(file, (">B", ">H", ">I")[head - 0xD9])
        return _take(file, size).decode("utf-8")
    if 0xC4 <= head <= 0xC6:
        return _skip(file, _number(file, (">B", ">H", ">I")[head - 0xC4]))
    if 0xC7 <= head <= 0xC9 or 0xD4 <= head <= 0xD8:
        size = _number(file, (">B", ">H", ">I")[head - 0xC7]) if head <= 0xC9 else 1 << (head - 0xD4)
        return _read_array(file, path, _number(file, ">b"), size)
    raise ValueError(f"byte {head:#x} at {file.tell() - 1} is no msgpack")


def _read_array(file: BinaryIO, path: Path, kind: int, size: int) -> Stored:
    end = file.tell() + size
    if kind not in ARRAY_TYPES:
        raise ValueError(f"there is an extension of type {kind} at {file.tell()}, which is no array")
    shape, name, piece = _read_value(file, path)
    if file.tell() != end:
        raise ValueError(f"the array that ends at {file.tell()} should end at {end}")
    return Stored(path, name, tuple(shape), (piece,))


def _check_size(name: str, array: Stored) -> None:
    if array.dtype.kind not in "biufc" and array.type_name != "bfloat16":
        raise ValueError(f"{name} holds no numbers but {array.type_name}")
    if not all(isinstance(side, int) and side >= 0 for side in array.shape):
        raise ValueError(f"{name} cannot have the shape {array.shape}")
    if math.prod(array.shape) * array.dtype.itemsize != array.nbytes:
        raise ValueError(
            f"{name} has {array.nbytes} bytes, {array.type_name} of shape {array.shape} has another number"
        )


def _number(file: BinaryIO, form: str) -> int:
    return struct.unpack(form, _take(file, struct.calcsize(form)))[0]


def _take(file: BinaryIO, size: int) -> bytes:
    found = file.read(size)
    if len(found) < size:
        raise ValueError(f"it ends at {file.tell()} in the middle of something")
    return found


def _skip(file: BinaryIO, size: int) -> tuple[int, int]:
    """Go past binary data, which must be there to its last byte; returns its place."""
    start = file.tell()
    if size:
        file.seek(start + size - 1)
        _take(file, 1)
    return start, size
