"""Python processes that start at once: forked from one that has imported the heavy packages.

Importing torch alone takes 3 s of a core, and the suite starts many processes. `WarmProcess` stands in for
`subprocess.Popen`, `warm(command)` for a command that somebody else starts; both run `-m MODULE`, `-c CODE` and script
files as a new interpreter would, but for packages that were imported before. Where that cannot be done (not Linux),
both start an interpreter as usual. What depends on the parent process, on limits set before the start, or on what is
imported when, needs a real one.
"""

from __future__ import annotations

import array
import contextlib
import functools
import json
import os
import select
import signal
import socket
import struct
import sys

TYPE_CHECKING = False  # typing itself would slow down the stand-in, as would what is imported further below
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

PACKAGES = (
    "numpy", "scipy.ndimage", "scipy.optimize", "SimpleITK", "torch", "safetensors.torch", "pydantic", "yaml", "jinja2",
    "typer", "rich.progress", "rich.table", "scipy.stats", "matplotlib.figure", "matplotlib.backends.backend_svg",
    "matplotlib.backends.backend_agg", "PIL.Image",
)
_CAN_FORK = sys.platform == "linux" and hasattr(os, "pidfd_open")
_PASSED_ON = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


# --- For tests -------------------------------------------------------------------------------------------------------


def warm(command: Sequence[str]) -> list[str]:
    """`command`, this interpreter and its arguments, to be started warm by whoever takes a command."""
    if not _CAN_FORK:
        return list(command)
    assert command[0] == sys.executable
    return [sys.executable, "-S", "-E", __file__, _server(), *command[1:]]


class WarmProcess:
    """What tests use of `subprocess.Popen` with pipes: pid, stdin, stdout, stderr, poll, wait, kill, send_signal."""

    def __new__(cls, arguments: Sequence[str], env: Mapping[str, str], cwd: str | Path):
        if not _CAN_FORK:
            import subprocess

            return subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, env=dict(env), cwd=cwd)
        return super().__new__(cls)

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], cwd: str | Path):
        (read_in, write_in), (read_out, write_out), (read_err, write_err) = os.pipe(), os.pipe(), os.pipe()
        theirs = (read_in, write_out, write_err)
        self._connection, self.pid = _start(_server(), arguments, env, cwd, theirs)
        for descriptor in theirs:
            os.close(descriptor)
        self.stdin = open(write_in, "wb", buffering=0)
        self.stdout, self.stderr = open(read_out, "rb"), open(read_err, "rb")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and _readable(self._connection, 0):
            self.returncode = _number(self._connection)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not _readable(self._connection, timeout):
            raise TimeoutError(f"process {self.pid} has not ended within {timeout} s")
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            _kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _server() -> str:
    """The socket of this process's own server, which ends with it."""
    import atexit
    import shutil
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp(prefix="medvae-warm-")
    path = os.path.join(folder, "socket")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(16)
    command = [sys.executable, __file__, "serve", str(listening.fileno()), folder]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listening.fileno()])
    listening.close()

    def end() -> None:
        process.stdin.close()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return path


# --- Asking for a process --------------------------------------------------------------------------------------------


def _start(server: str, arguments: Sequence[str], env: Mapping[str, str], cwd: str | Path,
           descriptors: Sequence[int]) -> tuple[socket.socket, int]:
    """The connection on which its exit code will come, and its process id. It is killed when the connection closes."""
    asked = json.dumps([list(map(str, arguments)), dict(env), str(cwd)]).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server)
    connection.sendmsg([struct.pack("i", len(asked))],
                       [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])
    connection.sendall(asked)
    return connection, _number(connection)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended, and its exit code is on its way
        os.kill(pid, number)


def _readable(connection: socket.socket, timeout: float | None) -> bool:
    return bool(select.select([connection], [], [], timeout)[0])


def _number(connection: socket.socket) -> int:
    return struct.unpack("i", _exactly(connection, 4))[0]


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError("the other side has gone")
        data += part
    return data


def _stand_in(server: str, arguments: Sequence[str]) -> None:
    """This process lends its name: passes signals on to the warm one and ends as that does."""
    connection, pid = _start(server, arguments, os.environ, os.getcwd(), (0, 1, 2))
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    # A signal that comes just before the wait would be noticed after it only, if nothing were there to be read.
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    for number in _PASSED_ON:
        signal.signal(number, lambda number, frame: _kill(pid, number))
    while connection not in select.select([connection, woken], [], [])[0]:
        os.read(woken, 64)  # its handler has passed the signal on
    code = _number(connection)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


# --- The server ------------------------------------------------------------------------------------------------------


def _serve(listening: socket.socket, folder: str) -> tuple[list[Any], Sequence[int]]:
    """Forks a process for each connection until standard input ends. Returns in every forked process, with what it is
    to do."""
    import gc

    for package in PACKAGES:
        with contextlib.suppress(ImportError):
            __import__(package)
    gc.freeze()
    # What they compile of MedVAELib is kept for the next, whatever the environment says of writing bytecode.
    sys.dont_write_bytecode, sys.pycache_prefix = False, folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the tests' process ends this one
    running: dict[int, tuple[socket.socket, int]] = {}  # by pidfd
    while True:
        watched = [sys.stdin, listening, *running, *(connection for connection, _ in running.values())]
        readable = select.select(watched, [], [])[0]
        if sys.stdin in readable:
            for _, pid in running.values():
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        for ended in [pidfd for pidfd in running if pidfd in readable]:
            connection, pid = running.pop(ended)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            _tell(connection, code)
            connection.close()
            os.close(ended)
        for connection, pid in running.values():
            if connection in readable:  # nobody waits for it any more
                os.kill(pid, signal.SIGKILL)
        if listening in readable:
            connection, _ = listening.accept()
            descriptors = array.array("i")
            try:
                data, handed, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(3 * 4))
                for _, _, sent in handed:
                    descriptors.frombytes(sent)
                asked = json.loads(_exactly(connection, struct.unpack("i", data)[0]))
            except (EOFError, OSError, struct.error):  # it was killed while it asked
                connection.close()
                for descriptor in descriptors:  # an open pipe would keep its reader waiting
                    os.close(descriptor)
                continue
            pid = os.fork()
            if pid == 0:
                for other, _ in running.values():
                    other.close()
                listening.close()
                connection.close()
                return asked, descriptors
            for descriptor in descriptors:
                os.close(descriptor)
            running[os.pidfd_open(pid)] = connection, pid
            _tell(connection, pid)


def _tell(connection: socket.socket, number: int) -> None:
    """Sends a number to whoever asked, who may have been killed meanwhile."""
    with contextlib.suppress(OSError):
        connection.sendall(struct.pack("i", number))


def _become(arguments: list[str], env: dict[str, str], cwd: str, descriptors: Sequence[int]) -> None:
    """What a new interpreter does with its arguments."""
    import atexit
    import runpy
    import tempfile
    import threading
    import traceback
    import types

    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    tempfile.tempdir = None
    kind, *rest = arguments if arguments[0] in ("-m", "-c") else ("", *arguments)
    first = cwd if kind else os.path.dirname(os.path.abspath(rest[0]))
    sys.path[0:1] = [first, *(path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path)]
    sys.argv = [kind if kind == "-c" else rest[0], *rest[1:]]
    try:
        if kind == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
        else:
            runpy.run_path(rest[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = -signal.SIGINT
    except BaseException:
        traceback.print_exc()
        code = 1
    # All that an interpreter does at its end but freeing what it holds, which takes a second.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asked, descriptors = _serve(socket.socket(fileno=int(sys.argv[2])), sys.argv[3])
        _become(*asked, descriptors)
    else:
        _stand_in(sys.argv[1], sys.argv[2:])
