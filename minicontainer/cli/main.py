"""The command line's front door, kept so small that Ctrl-C finds it open as early as Python allows.

Everything else is imported inside ``main``, where an interruption is caught; and the process ends with ``os._exit``
once its output is written, since taking the interpreter apart would cost 2 ms on every call.
"""

from __future__ import annotations

import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; `arguments` are the words after the program's name, by default the process's own.

    :returns: the exit status. Without `arguments` it does not return: the process ends with that status.
    :raises SystemExit: after a guest (``lab``, ``doctor``...), which leaves by the ordinary way.
    """
    try:
        from minicontainer.cli import dispatch

        status = dispatch.run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        status = 130
    if arguments is None:
        os._exit(status)
    return status


if __name__ == "__main__":
    main()
