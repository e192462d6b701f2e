"""Makes a message fit its own limits, where that loses nothing but the ends of texts.

Labels of containers, output of checks and the like come from anywhere. Refused at the gateway, one of them
would keep the whole node away for as long as it lasts, so the node cuts it before.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, inspect

from wire.limits import cut
from wire.messages import Message

M = TypeVar("M", bound=Message)

_type_of = cache(inspect.type_info)


def fitted(message: M) -> M:
    """`message` with each text cut to the limit of its field, without NUL and lone surrogates.

    Ids, digests and all else that has a pattern stay as they are: cut, they would name something else. So do
    lists: a placement without its last containers would be a false one.
    """
    made: M = _fitted(message, _type_of(type(message)))
    return made


def _fitted(value: Any, info: inspect.Type) -> Any:
    if value is UNSET:
        return value
    match info:
        case inspect.StructType(fields=fields):
            parts = {each.name: _fitted(getattr(value, each.name), each.type) for each in fields}
            return msgspec.structs.replace(value, **parts)
        case inspect.StrType(max_length=int(limit), pattern=None):
            return cut(value, limit)
        case inspect.ListType(item_type=item):
            return [_fitted(each, item) for each in value]
        case inspect.DictType(value_type=item):
            return {key: _fitted(each, item) for key, each in value.items()}
        case inspect.UnionType(types=types):
            meant = next((each for each in types if _is(value, each)), None)
            return _fitted(value, meant) if meant is not None else value
    return value


def _is(value: object, info: inspect.Type) -> bool:
    match info:
        case inspect.StructType(cls=cls):
            return isinstance(value, cls)
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.ListType():
            return isinstance(value, list)
    return False
