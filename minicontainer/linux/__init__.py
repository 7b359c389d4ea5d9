"""linux: one thin typed function per system call, with its man page.

Each function does what the call does and nothing more; a failure is an :class:`OSError` that names the call and the
path (see :mod:`minicontainer.linux.libc`), and :func:`minicontainer.linux.hints.explain` says in plain words what
usually causes it. Python's own ``os`` module has no mount(2) and, before 3.12, no unshare(2) or setns(2), so these go
to the C library through ctypes.
"""
