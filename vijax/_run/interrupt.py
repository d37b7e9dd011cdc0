"""Ctrl-C during a run."""

import signal
import threading
from types import FrameType, TracebackType


class Interruption:
    """Ctrl-C as something to look at, while this is entered.

    An exception that a signal raises is lost where it happens to arrive in code whose
    exceptions nobody can see: a finalizer, or a callback of the garbage collector. So
    the first Ctrl-C is written down, and the run looks here between its chunks. A second
    one, or one while `is_immediate`, is raised at once. Outside the main thread, or where
    somebody handles the signal already, nothing changes.
    """

    def __init__(self):
        self.is_asked = False
        self.is_immediate = False
        self._is_ours = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked or self.is_immediate:
            signal.default_int_handler(number, frame)
        self.is_asked = True

    def look(self) -> None:
        """Raise `KeyboardInterrupt` if somebody asked for it."""
        if self.is_asked:
            raise KeyboardInterrupt

    def __enter__(self) -> "Interruption":
        is_main = threading.current_thread() is threading.main_thread()
        is_free = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._is_ours = is_main and is_free
        if self._is_ours:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
