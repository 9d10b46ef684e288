"""What the tests of warm runs execute in runs and in templates. It stays light: templates import it."""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

state: list[str] = []
calls: list[str] = []


def report(_argument: str) -> None:
    """Say what this process is like."""
    umask = os.umask(0)
    os.umask(umask)
    print(
        json.dumps(
            {
                "environment": dict(os.environ),
                "folder": str(Path.cwd()),
                "first in path": sys.path[0],
                "argv": sys.argv,
                "session": os.getsid(0) == os.getpid(),
                "group": os.getpgid(0) == os.getpid(),
                "signals": {
                    name: str(signal.getsignal(getattr(signal, name)))
                    for name in ("SIGINT", "SIGTERM", "SIGPIPE", "SIGCHLD", "SIGHUP", "SIGXFSZ")
                },
                "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
                "descriptors": _descriptors(),
                "umask": umask,
                "temporary": tempfile.gettempdir(),
                "hour": time.localtime(0).tm_hour,
                "input": sys.stdin.read(),
                "collects": gc.isenabled(),
                "threads": threading.active_count(),
                "wakeup": signal.set_wakeup_fd(-1),
            },
            default=str,
        )
    )


def _descriptors() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - closed before the next line
        try:
            os.fstat(int(name))
        except OSError:
            continue
        found.append(int(name))
    return sorted(found)


def inherited(_argument: str) -> None:
    """Say which descriptors a program that the run starts gets."""
    code = (
        "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')))"
    )
    subprocess.run([sys.executable, "-c", code], close_fds=False, check=True)


def numbers(_argument: str) -> None:
    """Say what chance says here."""
    drawn: list[float] = [random.random()]  # noqa: S311
    drawn += [hash(bytes(multiprocessing.current_process().authkey))]
    if "numpy" in sys.modules:
        import numpy as np

        drawn += [float(np.random.rand())]
    print(json.dumps(drawn))


def leave_marks(argument: str) -> None:
    """Say what an earlier run has changed here, then change it."""
    print(json.dumps([state, os.environ.get("MARK"), Path.cwd().name, "mark" in sys.modules, os.umask(0o123)]))
    state.append(argument)
    os.environ["MARK"] = argument
    os.chdir("/")
    sys.modules["mark"] = sys
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def greet(argument: str) -> None:
    """Speak on both streams, and to the third descriptor."""
    print("out", argument)
    print("err", argument, file=sys.stderr)
    os.system("echo program")  # noqa: S605
    os.write(3, b"third")


def say_later(seconds: float, word: str) -> None:
    time.sleep(seconds)
    print(word)


def finish(argument: str) -> None:
    """Leave work for the end: a thread, a pool and an exit handler."""
    atexit.register(print, "exit handler")
    pool = ThreadPoolExecutor(1)
    pool.submit(say_later, 0.2, "pool")
    threading.Thread(target=say_later, args=(0.4, "thread")).start()
    print("returned")
    if argument:
        sys.exit(int(argument))


def bad_exit_handler(_argument: str) -> None:
    atexit.register(print, "first registered")
    atexit.register(lambda: 1 / 0)


def end(argument: str) -> None:
    """End in the way that the argument says."""
    if argument == "exit":
        sys.exit(3)
    if argument == "text":
        sys.exit("said at the end")
    if argument == "big":
        sys.exit(256 + 7)
    if argument == "nothing":
        sys.exit()
    if argument == "now":
        os._exit(9)
    if argument == "error":
        raise ValueError("wrong")
    if argument == "no output":
        sys.stdout = None
    if argument == "odd output":
        sys.stdout = object()
    if argument == "closed output":
        sys.stdout.close()
    if argument.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, argument))
        time.sleep(60)


def print_lines(_argument: str) -> None:
    print("lines\n" * 1000)


def _square(number: int) -> int:
    return number * number


def processes(method: str) -> None:
    """Work with processes of its own."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        print(list(pool.map(_square, range(4))))
    print(subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, check=True).stdout)


def sleep(seconds: str) -> None:
    time.sleep(float(seconds))


def sleep_then_exit(argument: str) -> None:
    seconds, status = argument.split()
    time.sleep(float(seconds))
    sys.exit(int(status))


def stubborn(path: str) -> None:
    """Ignore requests to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def polite(path: str) -> None:
    """Note that there was a request to end, and end."""

    def note(_number: int, _frame: object) -> None:
        Path(path + ".asked").touch()
        sys.exit(0)

    signal.signal(signal.SIGTERM, note)
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def leave_child(argument: str) -> None:
    """Leave a process behind that would run for long, and one below it."""
    path, seconds = argument.split()
    script = f"sleep 600 & echo $$ $! > {path}.new; mv {path}.new {path}; wait"
    subprocess.Popen(["sh", "-c", script])
    while not Path(path).exists():
        time.sleep(0.01)
    time.sleep(float(seconds))


def open_socket() -> None:
    """For a template: hold a socket open."""
    state.append("socket")
    sockets.append(socket.socket())


def start_thread() -> None:
    """For a template: have a thread."""
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


def open_file() -> None:
    """For a template: hold a file open."""
    sockets.append(os.fdopen(os.open(__file__, os.O_RDONLY)))


def break_fork() -> None:
    """For a template: let the second fork fail, and those after; the first is that of the template's own check."""
    fork = os.fork
    forks: list[int] = []

    def once() -> int:
        if len(forks) >= 2:
            raise BlockingIOError(11, "no more processes")
        forks.append(0)
        return fork()

    os.fork = once


def little_grace() -> None:
    """For a template: give runs little time once the worker is gone."""
    sys.modules["__main__"].GRACE_SECONDS = 1.0  # type: ignore[attr-defined]


def take_memory() -> None:
    """For a template: be large."""
    state.append("x" * (100 << 20))


def end_at_once() -> None:
    """For a template: never be ready."""
    os._exit(3)


sockets: list[object] = []
