"""What a file has besides its content: owner, mode, times, extended attributes; and the files that are nothing else.

Root may set all of it. An ordinary user, and root of a user namespace, may not: what cannot be set is counted and left
out, and the layer is still of use. Used in lab 04. Man pages: fchown(2), mknod(2), utimensat(2), xattr(7),
user_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.image import overlay
from minicontainer.image.merged import Found
from minicontainer.image.tar import BLOCK_DEVICE, CHAR, DIRECTORY, FIFO, FILE, SYMLINK, Entry


class Metadata:
    """Sets metadata as far as this process may.

    :param left_out: is counted up, by kind ("devices", "owners", "xattrs").
    """

    def __init__(self, left_out: dict[str, int]) -> None:
        self._left_out = left_out
        self._user = os.geteuid(), os.getegid()

    def node(self, entry: Entry, dirfd: int, name: bytes) -> bool:
        """Make a fifo or a device; False where this process may not make devices."""
        if entry.kind == FIFO:
            os.mkfifo(name, 0o600, dir_fd=dirfd)
            return True
        kind = {CHAR: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}[entry.kind]
        try:
            os.mknod(name, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=dirfd)
        except PermissionError:
            self._leave_out("devices")
            return False
        return True

    def finish_special(self, entry: Entry, dirfd: int, name: bytes) -> None:
        """Owner, attributes and time of what cannot be opened."""
        if (entry.uid, entry.gid) != self._user:
            try:
                os.chown(name, entry.uid, entry.gid, dir_fd=dirfd, follow_symlinks=False)
                if entry.kind != SYMLINK and entry.mode & 0o6000:
                    os.chmod(name, entry.mode, dir_fd=dirfd)
            except OSError as error:
                self._tolerate(error, "owners", errno.EPERM, errno.EINVAL)
        if entry.xattrs:
            self.mark(entry, b"/proc/self/fd/%d/%s" % (dirfd, name))
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=dirfd, follow_symlinks=False)

    def own(self, entry: Entry, descriptor: int) -> None:
        """Give the owner. As an ordinary user, or for an id without a place in the user namespace, it stays ours."""
        if (entry.uid, entry.gid) != self._user:
            try:
                os.fchown(descriptor, entry.uid, entry.gid)
            except OSError as error:
                self._tolerate(error, "owners", errno.EPERM, errno.EINVAL)

    def mark(self, entry: Entry, target: int | bytes) -> None:
        """Set the extended attributes that belong to a file's content, and none that steer overlayfs."""
        for key, value in entry.xattrs.items():
            name = os.fsdecode(key)
            allowed = name.startswith(("user.", "system.posix_acl_")) or name == "security.capability"
            if not allowed or name.startswith(overlay.PRIVATE):
                self._leave_out("xattrs")
                continue
            try:
                if isinstance(target, int):
                    os.setxattr(target, name, value)
                else:
                    os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                self._tolerate(error, "xattrs", errno.EPERM, errno.ENOTSUP)

    def _tolerate(self, error: OSError, kind: str, *numbers: int) -> None:
        if error.errno not in numbers:
            raise error
        self._leave_out(kind)

    def _leave_out(self, kind: str) -> None:
        self._left_out[kind] = self._left_out.get(kind, 0) + 1


def attributes_of(found: Found, descriptor: int) -> Entry:
    """The metadata of what a lower layer has, as an entry."""
    status = found.status
    names = [name for name in os.listxattr(descriptor) if not name.startswith(overlay.PRIVATE)]
    return Entry(
        found.name,
        DIRECTORY if stat.S_ISDIR(status.st_mode) else FILE,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        xattrs={os.fsencode(name): os.getxattr(descriptor, name) for name in names},
    )
