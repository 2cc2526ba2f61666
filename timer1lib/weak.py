"""Methods for one instance that do not keep it alive."""

from __future__ import annotations

import inspect
import types
import weakref
from collections.abc import Callable
from typing import Any


class WeakMethod:
    """`function` as a method of `owner`, to be put on the instance.

    A bound method there would make a circle: a model of many GB would then stay until the garbage collector happens to come
    by. A copy of the owner (`copy.deepcopy`) has a method of its own.
    """

    def __init__(self, function: Callable[..., Any], owner: Any) -> None:
        self._function, self._owner = function, weakref.ref(owner)
        self.__signature__ = inspect.signature(types.MethodType(function, owner))

    @property
    def __self__(self) -> Any:
        return self._owner()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(self._owner(), *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> WeakMethod:
        owner = self._owner()
        return WeakMethod(self._function, memo.get(id(owner), owner))
