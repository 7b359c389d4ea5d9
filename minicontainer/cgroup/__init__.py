"""cgroup: what a container may use of the machine, cgroup v1, v2 and hybrid behind one interface.

Lab 04 builds on this floor. Man page: cgroups(7); the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""
