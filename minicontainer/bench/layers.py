"""What many layers cost when an overlay is mounted: 40 against 1. Lab 05. Man page: mount(2); kernel: overlayfs.rst.

Run by :mod:`minicontainer.bench.start` in a private mount namespace as ``python -m minicontainer.bench.layers
DIRECTORY BLOCKS``; prints the blocks as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial

from minicontainer.bench.stats import interleave
from minicontainer.linux.mount import umount
from minicontainer.runtime.overlay import stack

MANY = 40
ONE_ARM, MANY_ARM = "1 layer", f"{MANY} layers"


def mount_once(directory: str, count: int) -> float:
    """Seconds to mount `count` layers, as the runtime does it; taken away again outside of the time."""
    lower = [f"{directory}/layers/{number:064x}" for number in range(count)]
    target = f"{directory}/merged"
    start = time.perf_counter()
    stack(lower, f"{directory}/upper", f"{directory}/work", target)
    seconds = time.perf_counter() - start
    if not os.path.exists(f"{target}/{count - 1}"):
        raise RuntimeError(f"the overlay lacks its layer {count - 1}")
    umount(target)
    return seconds


def main(directory: str, blocks: int) -> None:
    """Make the layers, measure, print."""
    for name in ("upper", "work", "merged"):
        os.makedirs(f"{directory}/{name}")
    for number in range(MANY):
        os.makedirs(f"{directory}/layers/{number:064x}/{number}")
    arms = {ONE_ARM: partial(mount_once, directory, 1), MANY_ARM: partial(mount_once, directory, MANY)}
    interleave(arms, 3)  # the first mounts read directories from the disk
    print(json.dumps(interleave(arms, blocks).quiet))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
