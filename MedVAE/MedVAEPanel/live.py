"""Asking the worker while something is being dragged: never more than one request under way, the latest wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Live:
    """`request(task, fields, on_result, on_error)` is the worker's.

    on_result(what was asked, reply) and on_error(error) are told of the request that was sent last, on_dropped(reply)
    of the result of one that was dropped; `send(what)` makes the request's fields of what is asked for only when its
    turn comes; the words of its OSError or ValueError are told as an error.
    """

    def __init__(self, request: Callable, task: str, send: Callable[[Any], Mapping[str, Any]],
                 on_result: Callable[[Any, Mapping[str, Any]], None], on_error: Callable[[Mapping[str, Any]], None],
                 on_dropped: Callable[[Mapping[str, Any]], None] = lambda reply: None):
        self._request, self._task, self._send = request, task, send
        self._on_result, self._on_error, self._on_dropped = on_result, on_error, on_dropped
        self._waiting: Any = None
        self._under_way: object | None = None
        self.sent = 0
        """How many requests there have been."""

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._under_way is not None

    def ask(self, what: Any) -> None:
        """Replaces what waits for its turn."""
        self._waiting = (what,)
        if not self.busy:
            self._next()

    def drop(self) -> None:
        """Nobody wants to hear any answer to what was asked so far."""
        self._waiting = self._under_way = None

    def _next(self) -> None:
        if self._waiting is None:
            return
        (what,), self._waiting = self._waiting, None
        try:
            fields = self._send(what)
        except (OSError, ValueError) as error:
            return self._on_error({"kind": type(error).__name__, "message": str(error)})
        ticket = self._under_way = object()
        self.sent += 1

        def ended(tell: Callable[[], None], drop: Callable[[], None] = lambda: None) -> None:
            if ticket is not self._under_way:
                return drop()
            self._under_way = None
            tell()
            if not self.busy:
                self._next()

        self._request(self._task, fields,
                      lambda reply: ended(lambda: self._on_result(what, reply), lambda: self._on_dropped(reply)),
                      lambda error: ended(lambda: self._on_error(error)))
