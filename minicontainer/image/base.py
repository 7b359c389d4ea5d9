"""Base images that need no registry: busybox from the machine's own static binary, the host's programs, or Debian.

``busybox:latest`` is one static file under 300 names, and the same bytes on every machine with the same binary.
``host:latest``, for a machine without it, is a shell, a few tools and Python with the libraries they load. Debian
comes from its mirror through mmdebstrap or debootstrap. Used from lab 01 on. Man pages: busybox(1), ld.so(8),
mmdebstrap(1).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from minicontainer.errors import ImageNotFound, MinicontainerError
from minicontainer.image.config import Image
from minicontainer.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minicontainer.image.tree import Tree

BUSYBOX = "busybox:latest"
HOST = "host:latest"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BUSYBOX_PLACES = (
    "/bin/busybox",
    "/usr/bin/busybox",
    "/usr/lib/initramfs-tools/bin/busybox",
    "/sbin/busybox",
)
_HOST_PROGRAMS = ("sh", "ps", "ls", "cat", "sleep", "id", "hostname", "mkdir", "rm", "env", "true", "false", "kill",
                  "echo", "mount", "umount", "ip", "stat", "touch", "chmod", "chown", "cp", "mv", "ln", "head", "tail",
                  "grep", "wc", "tr", "date", "uname", "whoami", "readlink", "dd", "df", "yes")  # fmt: skip
_HOST_NEEDED = frozenset(_HOST_PROGRAMS[:13])
_NOT_COPIED = frozenset(("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data",
                         "site-packages", "dist-packages", "__pycache__"))  # fmt: skip

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
wheel:x:10:root
www-data:x:33:
operator:x:37:
users:x:100:
nogroup:x:65534:
"""


def find_busybox() -> str | None:
    """A static busybox binary on this machine, or None."""
    from minicontainer.image.elf import Elf

    for place in _BUSYBOX_PLACES:
        if os.access(place, os.X_OK):
            try:
                if Elf(place).is_static:
                    return place
            except MinicontainerError:
                continue  # a script or something broken by that name: look on
    return None


def make_busybox(store: Store, binary: str | os.PathLike[str] | None = None) -> Image:
    """Make ``busybox:latest`` from a static busybox; the same binary gives the same image id.

    :param binary: the file to take; None looks in the usual places.
    :raises MinicontainerError: where there is none, or it needs libraries.
    """
    import subprocess

    from minicontainer.image.elf import Elf

    found = find_busybox() if binary is None else os.fspath(binary)
    if found is None:
        raise MinicontainerError(
            "no static busybox on this machine",
            hint="install the package busybox-static (Debian) or busybox (Fedora)",
        )
    if not Elf(found).is_static:
        raise MinicontainerError(
            f"{found} needs shared libraries, so it would not run alone in an image",
            hint="install the package busybox-static (Debian) or busybox (Fedora)",
        )
    names: list[str] = []
    for option in ("--list-full", "--list"):  # the second where the first was left out of the build
        done = subprocess.run([found, option], capture_output=True, text=True, check=False)
        names = done.stdout.split()
        if done.returncode == 0 and names:
            break
    if not names:
        raise MinicontainerError(f"{found} --list names no applets", hint="is it really busybox?")
    tree = _skeleton()
    tree.file("bin/busybox", Path(found), 0o755)
    for name in names:
        path = name if "/" in name else f"bin/{name}"
        if name not in ("linuxrc", "busybox", "bin/busybox"):
            tree.symlink(path, os.path.relpath("bin/busybox", os.path.dirname(path)))
    if "usr/bin/env" not in names:
        tree.symlink("usr/bin/env", "../../bin/busybox")
    return _add(store, BUSYBOX, tree, f"busybox from {os.path.basename(found)}")


def make_host(store: Store) -> Image:
    """Make ``host:latest`` from this machine's shell, tools and Python, with the libraries that they load.

    :raises MinicontainerError: where one of the needed programs is missing.
    """
    from shutil import which

    tree = _skeleton()
    for program in _HOST_PROGRAMS:
        path = which(program, path="/bin:/usr/bin:/sbin:/usr/sbin:/usr/local/bin")
        if path is not None:
            _add_program(tree, path)
        elif program in _HOST_NEEDED:
            raise MinicontainerError(
                f"this machine has no program {program}", hint="install it, or a static busybox"
            )
    _add_python(tree)
    # Loaded by name when users are looked up; part of libc itself since glibc 2.34.
    for loaded in Path("/lib").glob("*-linux-gnu*/libnss_files*.so.2"):
        tree.file(str(loaded), loaded, 0o755)
    return _add(store, HOST, tree, "programs of the machine it was made on")


def _add_program(tree: Tree, path: str, name: str | None = None) -> str:
    """Copy a program, its loader and its libraries; returns the loader ("" for a static program or a script)."""
    from minicontainer.image.elf import Elf, is_elf, libraries

    real = os.path.realpath(path)
    tree.file(name or path, Path(real), 0o755)
    if not is_elf(real):
        with open(real, "rb") as file:
            first = file.readline(256)
        if first.startswith(b"#!"):
            _add_program(tree, first[2:].split()[0].decode())
        return ""
    loader = Elf(real).interpreter
    if loader:
        tree.file(loader, Path(os.path.realpath(loader)), 0o755)
        for library in libraries(real, loader):
            tree.file(library, Path(os.path.realpath(library)), 0o755)
    return loader


def _add_python(tree: Tree) -> None:
    """Copy the system's Python, or the one that runs this, with its standard library and what that loads."""
    import json
    import subprocess

    from minicontainer.image.elf import libraries

    python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
    code = ("import json, os, sys, sysconfig as s; print(json.dumps([os.path.realpath(sys.executable), "
            "s.get_path('stdlib'), s.get_path('platstdlib'), s.get_config_var('VERSION')]))")  # fmt: skip
    done = subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    binary, standard, platform, version = json.loads(done.stdout)
    loader = _add_program(tree, binary)
    for name in ("python3", f"python{version}"):
        if f"/usr/bin/{name}" != binary:
            tree.symlink(f"usr/bin/{name}", binary)
    for top in {standard, platform}:
        for directory, below, files in os.walk(top):
            below[:] = [name for name in below if name not in _NOT_COPIED and not name.startswith("config-")]
            for file in files:
                path = os.path.join(directory, file)
                if not os.path.isfile(path) or file.endswith((".pyc", ".a")):
                    continue
                tree.file(path, Path(os.path.realpath(path)), 0o644)
                if ".so" in file and loader:
                    for library in libraries(path, loader):
                        tree.file(library, Path(os.path.realpath(library)), 0o755)


def make_debian(store: Store, suite: str = "bookworm", *, packages: Sequence[str] = ()) -> Image:
    """Make ``debian:SUITE`` (minbase) from the mirror that this machine's apt uses, with mmdebstrap or debootstrap.

    :param packages: more packages to install.
    :raises MinicontainerError: where neither program is there, this is not root, or the mirror does not answer.
    """
    import subprocess
    import tempfile
    from shutil import which

    from minicontainer.image.pack import pack

    if os.geteuid() != 0:
        raise MinicontainerError(
            "making a Debian image needs root", hint="use sudo, or `minicontainer lab -- …`"
        )
    mirror = apt_mirror()
    extra = [f"--include={','.join(packages)}"] if packages else []
    with tempfile.TemporaryDirectory(prefix="minicontainer-debian-") as work:
        archive = f"{work}/layer.tar"
        if which("mmdebstrap"):
            command = ["mmdebstrap", "--quiet", "--variant=minbase", *extra, suite, archive, mirror]
        elif which("debootstrap"):
            command = ["debootstrap", "--variant=minbase", *extra, suite, f"{work}/root", mirror]
        else:
            raise MinicontainerError(
                "neither mmdebstrap nor debootstrap is installed",
                hint="install one: apt-get install mmdebstrap",
            )
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise MinicontainerError(
                f"{command[0]} failed for {suite} from {mirror}: {' / '.join(last)}",
                hint="does the mirror answer, and is the suite's name right?",
            )
        if command[0] == "debootstrap":
            with open(archive, "wb") as file:
                pack(f"{work}/root", file)
        return store.add(f"debian:{suite}", [archive], _config(["bash"], f"debian {suite}", _now()))


def apt_mirror(configuration: Path = Path("/etc/apt")) -> str:
    """The first Debian mirror in apt's sources, in either of their two formats (sources.list(5))."""
    more = configuration / "sources.list.d"
    places = [configuration / "sources.list", *sorted([*more.glob("*.list"), *more.glob("*.sources")])]
    for place in places:
        if not place.is_file():
            continue
        for line in place.read_text(errors="replace").splitlines():
            words = line.split()
            if not words or words[0] not in ("deb", "URIs:", "uris:"):
                continue
            for word in words[1:]:
                if "://" in word and word.rstrip("/").endswith("/debian"):
                    return word
    return "http://deb.debian.org/debian"


def ensure_default(store: Store) -> Image:
    """The image that the labs start from, made when missing: ``busybox:latest``, or else ``host:latest``.

    Quick where it is there, and safe to call from several processes at once.
    """
    for name in (BUSYBOX, HOST):
        try:
            return store.resolve(name)
        except ImageNotFound:
            continue
    return make_busybox(store) if find_busybox() else make_host(store)


def _skeleton() -> Tree:
    """The directories and files that programs expect of any Unix."""
    from minicontainer.image.tree import Tree

    tree = Tree()
    for path in ("bin", "dev", "etc", "home", "lib", "mnt", "opt", "proc", "run", "sbin", "srv", "sys", "usr/bin",
                 "usr/lib", "usr/local/bin", "usr/local/sbin", "usr/sbin", "var/cache", "var/lib", "var/log",
                 "var/spool", "var/www"):  # fmt: skip
        tree.directory(path)
    tree.directory("root", 0o700)
    tree.directory("tmp", 0o1777)
    tree.directory("var/tmp", 0o1777)
    tree.file("etc/passwd", _PASSWD.encode())
    tree.file("etc/group", _GROUP.encode())
    tree.file("var/www/index.html", b"<!doctype html>\n<title>minicontainer</title>\n<h1>It works.</h1>\n")
    return tree


def _now() -> str:
    """RFC 3339, from SOURCE_DATE_EPOCH where that is set."""
    import time

    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _config(command: list[str], made_from: str, created: str) -> dict[str, object]:
    return {
        "created": created,
        "config": {"Env": [PATH], "Cmd": command},
        "history": [{"created": created, "created_by": f"minicontainer base: {made_from}"}],
    }


def _add(store: Store, reference: str, tree: Tree, made_from: str) -> Image:
    import tempfile

    with tempfile.NamedTemporaryFile(prefix="minicontainer-base-", suffix=".tar") as file:
        tree.write(file)  # type: ignore[arg-type]  # a wrapper with a file's methods
        file.flush()
        # A fixed date: the moment of making would give the same binary another image id each time.
        return store.add(reference, [file.name], _config(["sh"], made_from, "1970-01-01T00:00:00Z"))


def main(arguments: list[str] | None = None) -> int:
    """``python -m minicontainer.image.base --ensure [--quiet]``: make the default image where it is missing."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m minicontainer.image.base", description=main.__doc__)
    parser.add_argument(
        "--ensure", action="store_true", help="make busybox:latest (or host:latest) if it is missing"
    )
    parser.add_argument("--busybox", metavar="FILE", help="make busybox:latest from this static binary")
    parser.add_argument("--host", action="store_true", help="make host:latest from this machine's programs")
    parser.add_argument("--debian", metavar="SUITE", help="make debian:SUITE with mmdebstrap or debootstrap")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    options = parser.parse_args(arguments)
    store = Store()
    made: list[Image] = []
    try:
        if options.busybox:
            made.append(make_busybox(store, options.busybox))
        if options.host:
            made.append(make_host(store))
        if options.debian:
            made.append(make_debian(store, options.debian))
        if options.ensure or not made:
            image = ensure_default(store)
            store.layer_paths(image)
            made.append(image)
    except MinicontainerError as error:
        print(f"minicontainer: {error}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    for image in made:
        if not options.quiet:
            print(f"{', '.join(image.references)}  {image.short_id}  {image.size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
