"""Kernels that begin with their libraries loaded: all are forked from one process that has imported them once.

To start kernels and to import the libraries in each takes a tenth of a cold book. Linux only: elsewhere a process with
these libraries cannot be forked safely, and kernels start as Jupyter starts them.

    python -m slowmanifold.press.forks

is that process. It reads requests, a line of JSON each, and answers with the number of the kernel's process. When the
requests end, because the book is done or because the press was killed, it ends all kernels that are left.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager

WORTHWHILE = 4  # chapters; for fewer it takes longer to load the libraries than it saves
# The kernel, and what the chapters import that takes longest.
LIBRARIES = (
    "IPython",
    "ipykernel.ipkernel",
    "ipykernel.kernelapp",
    "torch",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "PIL.PngImagePlugin",
    "scipy.integrate",
    "scipy.interpolate",
    "scipy.optimize",
    "joblib",
)


class Forked(psutil.Process):
    """The process of a kernel, with what Jupyter asks of a ``Popen``."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        """0 if it has ended."""
        with suppress(psutil.NoSuchProcess):
            if self.status() != psutil.STATUS_ZOMBIE:
                return None
        return 0

    def wait(self, timeout: float | None = None) -> int | None:
        """The same: Jupyter waits by itself."""
        return self.poll()

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it has not ended."""
        with suppress(psutil.NoSuchProcess):
            super().send_signal(sig)


class Server:
    """The process that kernels are forked from, as the press sees it."""

    def __init__(self) -> None:
        # In a session of its own: a Ctrl-C is for the press.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.turn = Lock()

    def fork(self, arguments: list[str], environment: dict[str, str], folder: str) -> Forked:
        """A kernel with the arguments of ``ipykernel_launcher``; ``RuntimeError`` if the server has ended."""
        with self.turn:
            with suppress(BrokenPipeError):
                print(json.dumps([arguments, environment, folder]), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("the process that kernels are forked from has ended")
        return Forked(int(answer))

    def end(self) -> None:
        """End it, and with it its kernels."""
        self.process.communicate()


@contextmanager
def kernel_managers(chapters: int) -> Iterator[type[AsyncKernelManager]]:
    """What starts the kernels of so many chapters; those that are forked, where it is worthwhile, end with it."""
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning import LocalProvisioner

    if chapters < WORTHWHILE or sys.platform != "linux":
        yield AsyncKernelManager
        return

    server = Server()

    class Provisioner(LocalProvisioner):
        """Jupyter's own, but that a kernel is forked where others are started."""

        async def launch_kernel(self, cmd: list[str], *, env: dict[str, str], cwd: str, **_: Any) -> dict[str, Any]:
            self.process = server.fork(cmd[cmd.index("ipykernel_launcher") + 1 :], env, cwd)
            self.pid = self.pgid = self.process.pid
            self.cwd = cwd
            return self.connection_info

    class Manager(AsyncKernelManager):
        """Jupyter's own, with this provisioner."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.provisioner = Provisioner(kernel_id="", kernel_spec=self.kernel_spec, parent=self)

    try:
        yield Manager
    finally:
        server.end()


def serve() -> None:
    """Be the server."""
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # read by ipykernel: a kernel ends if its server was killed
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as ipykernel sets it
    for name in LIBRARIES:
        import_module(name)
    gc.collect()
    gc.freeze()  # what is loaded is never garbage
    kernels = []
    for request in sys.stdin:
        kernel = os.fork()
        if kernel == 0:
            become_kernel(*json.loads(request))
        kernels.append(kernel)
        print(kernel, flush=True)
    for kernel in kernels:
        ended, _ = os.waitpid(kernel, os.WNOHANG)
        if not ended:
            os.killpg(kernel, signal.SIGKILL)


def become_kernel(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Be the kernel that a program of its own would be, to the end of this process."""
    from ipykernel.kernelapp import launch_new_instance

    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)  # where the server answers
        launch_new_instance(arguments)
    finally:
        os._exit(0)


if __name__ == "__main__":
    serve()
