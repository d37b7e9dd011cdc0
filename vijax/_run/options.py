"""What the host does during a run."""

import copy
import os
from collections.abc import Callable, Sequence

from .._misc import as_flag, as_whole
from .checks import check_callbacks, check_folder


class Options:
    """What the host does during a run."""

    def __init__(
        self,
        *,
        callbacks: Callable | Sequence[Callable],
        callback_every: int,
        show: bool,
        checkpoint: str | os.PathLike | None,
        throw: bool,
    ):
        check_folder("checkpoint", checkpoint)
        self.callbacks = check_callbacks(callbacks)
        self.callback_every = as_whole("callback_every", callback_every, 1, None)
        self.show = as_flag("progress", show)
        self.checkpoint = checkpoint
        self.throw = as_flag("throw", throw)

    @classmethod
    def none(cls) -> "Options":
        """Nothing happens."""
        nothing = {"callbacks": (), "callback_every": 1, "checkpoint": None}
        return cls(**nothing, show=False, throw=False)

    def quiet(self) -> "Options":
        """The same, but a failure is only written in the result."""
        quiet = copy.copy(self)
        quiet.throw = False
        return quiet

    def alone(self) -> "Options":
        """The same without callbacks and checkpoints."""
        alone = copy.copy(self)
        alone.callbacks, alone.checkpoint = (), None
        return alone
