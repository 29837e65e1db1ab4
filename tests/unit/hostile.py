"""Random protobuf messages for hypothesis: any field, any value, nested; numbers near the edges."""

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

DEPTH_MAX = 3
REPEATED_MAX = 4

_BITS = {
    FieldDescriptor.TYPE_UINT32: (0, 32),
    FieldDescriptor.TYPE_UINT64: (0, 64),
    FieldDescriptor.TYPE_INT32: (31, 31),
    FieldDescriptor.TYPE_INT64: (63, 63),
}
# Names and paths that file systems stumble over.
_TEXTS = [b"", b".", b"..", b"/", b"a", b"d", b"f", b"link", b"loop", b"a/b", b"a\0b", b"\xff\xfe"]
_TEXTS += [b"x" * 255, b"x" * 256, b"d/../d/f", b"/d//f/", b"y/" * 1000]


def numbers(low_bits: int, high_bits: int) -> st.SearchStrategy[int]:
    low = -(1 << low_bits) if low_bits else 0
    high = (1 << high_bits) - 1
    edges = [n for n in (0, 1, 2, 3, 7, low, high, high - 1, high >> 1) if low <= n <= high]
    return st.one_of(st.sampled_from(edges), st.integers(0, 20), st.integers(low, high))


def octets() -> st.SearchStrategy[bytes]:
    return st.one_of(st.sampled_from(_TEXTS), st.binary(max_size=40), st.just(b"client-aaaaaaaaa"))


def _scalar(field: Any, depth: int) -> st.SearchStrategy[Any]:
    if field.type in _BITS:
        return numbers(*_BITS[field.type])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return octets()
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.text(max_size=20)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_ENUM:
        known = sorted(value.number for value in field.enum_type.values)
        return st.one_of(st.sampled_from(known), st.integers(-1, 1 << 20))
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return st.floats()
    assert field.type == FieldDescriptor.TYPE_MESSAGE, field.full_name
    return messages(field.message_type._concrete_class, depth + 1)


@st.composite
def messages(draw: Any, kind: type[Message], depth: int = 0, skip: Iterable[str] = ()) -> Message:
    """A message of `kind`; each field is set or not."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if field.name in skip or not draw(st.booleans()):
            continue
        if depth >= DEPTH_MAX and field.type == FieldDescriptor.TYPE_MESSAGE:
            continue
        if field.is_repeated:
            values = draw(st.lists(_scalar(field, depth), max_size=REPEATED_MAX))
            getattr(message, field.name).extend(values)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, field.name).CopyFrom(draw(_scalar(field, depth)))
        else:
            setattr(message, field.name, draw(_scalar(field, depth)))
    return message
