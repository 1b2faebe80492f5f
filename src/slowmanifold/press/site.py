"""A staged book becomes a folder of HTML that opens anywhere, also offline; and that folder is served."""

from __future__ import annotations

import errno
import functools
import http.server
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# What the place of the output can be at fault for: full, over its quota or its largest file, read-only.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class SiteError(Exception):
    """The site could not be built cleanly; the message holds every warning and error of the run."""


def build(staged: Path, output: Path, *, strict: bool = True) -> None:
    """Build the staged book into ``output``, a folder that does not exist yet and appears only when it is complete.

    Sphinx runs in a process of its own, from clean doctrees and in parallel. With ``strict`` every warning, a dangling
    reference included, is an error; all of them are collected before the run ends.

    Raises SiteError with Sphinx's warnings and errors, and OSError if the output has no room.
    """
    staged, output = staged.resolve(), output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".site-", dir=output.parent) as folder:
        scratch = Path(folder)
        (scratch / "conf.py").write_text(
            "from slowmanifold.press.sphinx_ext import configuration\n"
            f"globals().update(configuration({str(staged)!r}))\n",
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-T", "--no-color", "-j", "auto"]
        if strict:
            command += ["-n", "-W", "--keep-going"]
        command += ["-c", scratch, "-d", scratch / "doctrees", staged, scratch / "html"]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            told = {int(number) for number in re.findall(r"(?:\[Errno |OSError\()(\d+)", done.stderr)}
            for number in sorted(NO_ROOM & told):
                raise OSError(number, os.strerror(number), str(output.parent))
            raise SiteError(done.stderr.replace(f"{staged}{os.sep}", "").strip())
        (scratch / "html").rename(output)


def serve(folder: Path, port: int) -> None:
    """Serve ``folder`` to this machine until Ctrl-C, on ``port`` or, where that is taken, on a free one."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
