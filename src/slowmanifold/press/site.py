"""A staged book becomes a folder of HTML that opens anywhere, also offline; and that folder is served."""

from __future__ import annotations

import errno
import filecmp
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from slowmanifold.press.execute import CORES

# What the place of the output can be at fault for: full, over its quota or its largest file, read-only.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class SiteError(Exception):
    """The site could not be built cleanly; the message holds every warning and error of the run."""


def build(staged: Path, output: Path, *, strict: bool = True, workshop: Path | None = None) -> None:
    """Build the staged book into ``output``, a folder that does not exist yet and appears only when it is complete.

    Sphinx runs in a process of its own, in parallel and from clean doctrees. With ``strict`` every warning, a dangling
    reference included, is an error; all of them are collected before the run ends.

    With a folder ``workshop`` sources, doctrees and pages of the build stay there. Where only texts of pages have
    changed since, the next one there reads these pages alone and writes what they change: the same site as from clean
    doctrees. A build that fails or is killed leaves nothing to go on from, so that its warnings come again.

    Raises SiteError with Sphinx's warnings and errors, and OSError if the output has no room.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".site-", dir=output.parent) as folder:
        made = Path(folder, "made")
        if workshop is not None:
            staged = take_over(staged, workshop, made)
        made.mkdir(exist_ok=True)
        sphinx(staged, made, strict=strict)
        if workshop is not None:
            html = made.with_name("html")
            shutil.copytree(made / "html", html)
            made.rename(workshop / "made")
        else:
            html = made / "html"
        html.rename(output)


def take_over(staged: Path, workshop: Path, made: Path) -> Path:
    """Bring the sources in ``workshop`` up to date; move what was last made of them to ``made`` if it is still of use.

    Return the sources, for Sphinx knows them again by their place and their times.
    """
    sources, last = workshop / "staged", workshop / "made"
    edited = edited_texts(sources, staged) if last.is_dir() else None
    if edited is None:
        shutil.rmtree(workshop, ignore_errors=True)
        shutil.copytree(staged, sources)
        return sources
    last.rename(made)
    shutil.rmtree(made / "html" / "_static")  # what a page's head says of these files depends on whether they are there
    for text in edited:
        shutil.copy(staged / text, sources / text)
    return sources


def edited_texts(old: Path, new: Path) -> list[Path] | None:
    """Pages and their texts that differ between two staged books; None if anything else does."""
    files = [{path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (old, new)]
    if files[0] != files[1]:
        return None
    edited = [path for path in sorted(files[1]) if not filecmp.cmp(old / path, new / path, shallow=False)]
    return edited if all(path.suffix in {".md", ".ipynb"} for path in edited) else None


def sphinx(staged: Path, made: Path, *, strict: bool) -> None:
    """Run Sphinx on the staged book, with settings, doctrees and pages (``html``) in the folder ``made``."""
    staged, made = staged.resolve(), made.resolve()
    (made / "conf.py").write_text(
        f"from slowmanifold.press.sphinx_ext import configuration\nglobals().update(configuration({str(staged)!r}))\n",
        encoding="utf-8",
    )
    # Two more than cores: the first process takes no page to write, and while one is written it prepares the next.
    jobs = str(CORES + 2)
    command = [sys.executable, "-m", "slowmanifold.press.sphinx_process"]
    command += ["-b", "html", "-q", "-T", "--no-color", "-j", jobs]
    if strict:
        command += ["-n", "-W", "--keep-going"]
    command += ["-c", made, "-d", made / "doctrees", staged, made / "html"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        told = {int(number) for number in re.findall(r"(?:\[Errno |OSError\()(\d+)", done.stderr)}
        for number in sorted(NO_ROOM & told):
            raise OSError(number, os.strerror(number), str(made.parent.parent))
        raise SiteError(done.stderr.replace(f"{staged}{os.sep}", "").strip())


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
