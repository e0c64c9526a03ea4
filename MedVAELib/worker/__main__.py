"""`python -m MedVAELib.worker`."""

from __future__ import annotations

import faulthandler

from .server import Server, end_on_signals, hold_signals, private_streams


def main() -> None:
    source, sink = private_streams()
    faulthandler.enable()  # a crash in a library leaves its last words in the log
    numbers = hold_signals()  # before NumPy starts its threads
    from .tasks import TASKS

    server = Server(TASKS, source, sink)
    end_on_signals(server, numbers)
    server.run()


if __name__ == "__main__":
    main()
