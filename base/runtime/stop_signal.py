"""Turns SIGTERM, SIGINT and SIGUSR1 into a flag that the loop looks at between steps."""

import os
import signal
from contextlib import suppress
from types import FrameType

SIGNALS = [getattr(signal, n) for n in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, n)]
EXIT_CODES = {signum: 130 if signum == signal.SIGINT else 143 for signum in SIGNALS}


class StopSignal:
    """A context in which a signal is remembered, not acted on; a second SIGINT leaves at once.

    `number` is the signal's number, 0 while none came. Python delivers signals to the main thread
    only; elsewhere (a notebook's worker thread) the context does nothing.
    """

    def __init__(self) -> None:
        self.number = 0
        self._is_interrupted = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        with suppress(ValueError):  # not the main thread
            for signum in SIGNALS:
                self._previous[signum] = signal.signal(signum, self._remember)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler or signal.SIG_DFL)  # None: it was not set by Python

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT:
            if self._is_interrupted:
                os._exit(EXIT_CODES[signum])
            self._is_interrupted = True
        self.number = signum


def leave_signals_to_parent(worker: int) -> None:
    """Keep from a DataLoader's worker what stops a run: its parent needs it until it has saved.

    Terminals and torchrun signal a whole process group, so a worker leaves it. SIGTERM sent to the
    worker itself still ends it; that is how its parent does.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    for signum in set(SIGNALS) - {signal.SIGTERM}:
        signal.signal(signum, signal.SIG_IGN)
