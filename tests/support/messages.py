"""What could a message be? Strategies for every struct of the protocol, from what its fields allow."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from dragoman.protocol.node_messages import NodeInbound, NodeOutbound
from dragoman.protocol.session_messages import SessionInbound, SessionOutbound

DIRECTIONS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "session_server": get_args(SessionInbound),
    "session_client": get_args(SessionOutbound),
    "node_server": get_args(NodeInbound),
    "node_client": get_args(NodeOutbound),
}
"""Which messages each reader knows."""

_LONG = 2**63

json_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-_LONG, _LONG - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
json_values = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
"""Whatever both formats can say."""


@cache
def messages(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any valid message of a type. What may be absent is absent half the time."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    needed = {field.name: _values(field.type) for field in info.fields if field.required}
    free = {field.name: _values(field.type) for field in info.fields if not field.required}
    return st.fixed_dictionaries(needed, optional=free).map(lambda fields: kind(**fields))


def _values(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.UnionType(types=types):
            return st.one_of(*(_values(option) for option in types))
        case inspect.StructType(cls=kind):
            return messages(kind)
        case inspect.ListType(item_type=item) | inspect.CollectionType(item_type=item):
            return st.lists(_values(item), max_size=3)
        case inspect.DictType():
            return st.dictionaries(st.text(max_size=8), json_values, max_size=3)
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.EnumType(cls=members):
            return st.sampled_from(list(members))
        case _:
            return _scalars(info)


def _scalars(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=low, le=high):
            return st.integers(-_LONG if low is None else low, _LONG - 1 if high is None else high)
        case inspect.FloatType(ge=least):
            return st.floats(min_value=least, allow_nan=False, allow_infinity=False).filter(math.isfinite)
        case inspect.StrType(min_length=shortest, max_length=longest):
            return st.text(min_size=shortest or 0, max_size=min(longest or 12, 12))
        case inspect.BytesType():
            return st.binary(max_size=12)
        case inspect.AnyType():
            return json_values
        case _:
            raise TypeError(f"no strategy for {info}")
