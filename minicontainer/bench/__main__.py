"""``minicontainer bench start``: the promises about start-up, measured on this machine."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence

from minicontainer.errors import MinicontainerError

DESCRIPTION = (
    "Start containers with minicontainer and with the runtimes that are installed (crun, runc, bubblewrap, Podman,"
    " Docker), interleaved in random order, and print each promise with its ratio, interval and verdict. The other"
    " runtimes are run privately: their own storage, daemon and control groups, removed at the end."
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minicontainer bench", description="Measure what containers cost.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="WHAT")
    start = verbs.add_parser(
        "start", help="how long containers take to start, and their memory", description=DESCRIPTION
    )
    start.add_argument("--blocks", type=_positive, metavar="N", help="blocks a line (default 30)")
    start.add_argument("--containers", type=_positive, metavar="N", help="detached containers (default 20)")
    size = start.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="100 blocks and 100 detached containers")
    size.add_argument(
        "--quick", action="store_true", help="a few of everything: shows that it works, no more"
    )
    start.add_argument("--check", action="store_true", help="exit status 1 where a promise is broken")
    start.add_argument("--json", metavar="FILE", help="also write every block to FILE")
    start.add_argument(
        "--directory", default="/var/tmp", help="where containers' files go meanwhile (default /var/tmp)"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark; exit status 0 unless it failed, or with --check a promise was broken."""
    options = _parser().parse_args(arguments)
    # A kill ends us by an exception, so that everything is removed on the way out.
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return _start(options)
    except MinicontainerError as error:
        print(f"minicontainer bench: {error}\n{error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(options: argparse.Namespace) -> int:
    from minicontainer.bench import lines, machine, start

    blocks, count, rounds = (100, 100, 3) if options.full else (5, 4, 1) if options.quick else (30, 20, 3)
    live = sys.stderr.isatty()

    def tell(text: str) -> None:
        if live:
            print(f"\r\033[K{text} …", end="", file=sys.stderr, flush=True)

    try:
        described, rows = start.run(
            below=options.directory,
            blocks=options.blocks or blocks,
            count=options.containers or count,
            rounds=rounds,
            tell=tell,
        )
    finally:
        if live:
            print("\r\033[K", end="", file=sys.stderr)
    print(machine.summary(described))
    print(f"others used {described['foreign_cpu_seconds']:.1f} CPU seconds meanwhile\n")
    print(lines.table(rows))
    if options.json:
        report = {"machine": described, "rows": [row.as_dict() for row in rows]}
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)
    return 1 if options.check and any(row.fails for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
