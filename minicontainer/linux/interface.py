"""One network interface, switched on by ioctl(2): all that a container without a network needs.

Man pages: netdevice(7), ioctl(2).
"""

from __future__ import annotations

import fcntl
import socket
import struct

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


def set_up(name: str) -> None:
    """Bring the interface `name` of this network namespace up; for "lo" the kernel then adds 127.0.0.1 and ::1.

    :raises OSError: ENODEV where there is no such interface, EPERM without CAP_NET_ADMIN.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh14x", name.encode(), 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(handle, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), flags | IFF_UP))
