"""Asked to stop: a signal is noted, and the loop ends at its next safe place."""

import signal
import threading
from types import FrameType
from typing import Any

_ASKING = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """A context in which the first SIGTERM or SIGINT is only noted; a second one acts as before.

    `received` is the signal's name, empty while there was none. Outside the main thread, where
    Python has no handlers, nothing is noted.
    """

    def __init__(self) -> None:
        self.received = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._before = {asking: signal.signal(asking, self._note) for asking in _ASKING}
        return self

    def __exit__(self, *_: object) -> None:
        for asking, handler in self._before.items():
            signal.signal(asking, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        for asking, handler in self._before.items():
            signal.signal(asking, handler)
