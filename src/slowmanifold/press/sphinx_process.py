"""Sphinx in a process that lives for one build: ``python -m slowmanifold.press.sphinx_process``, then as ``sphinx``.

It collects no cycles and clears nothing up at its end. Page trees are full of cycles, and are needed to the end; to
look for garbage among them takes a fifth of a build, and to take them down piece by piece another fifth.
"""

import gc
import os
import sys

if __name__ == "__main__":
    gc.disable()
    from sphinx.cmd.build import main

    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
