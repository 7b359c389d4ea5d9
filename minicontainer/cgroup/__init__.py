"""cgroup: what a container may use of the machine, cgroup v1, v2 and hybrid behind one interface.

``hierarchy`` finds what the machine has, ``group`` makes and removes a container's group in it, ``delegation`` hands
controllers down on v2. ``limits`` sets limits (``v1`` and ``v2`` know the files), ``devices`` the device rules,
``freezer`` stops a group, ``stats`` and ``oom`` say what happened to it.

Lab 04 builds on this floor. Man page: cgroups(7); the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""
