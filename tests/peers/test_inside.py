"""Our default container beside Docker's and Podman's, seen from inside: every difference is explained here, or fails.

One shell script prints facts, one a line, in each of the three; what differs must match an entry of ``EXPLAINED``.
"""

from __future__ import annotations

import re

import pytest

PROBE = r"""
status() { cat /proc/self/status; }
for name in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters Groups Umask SigIgn SigBlk; do
    echo "status $name = $(status | sed -n "s/^$name:[[:space:]]*//p")"
done
echo "label = $(cat /proc/self/attr/current 2>/dev/null)"
echo "user = $(id -u):$(id -g)"
echo "first process = $(cut -d' ' -f1,4-7 /proc/1/stat)"
echo "hostname length = $(hostname | wc -c)"
echo "directory = $(pwd)"
echo "oom_score_adj = $(cat /proc/1/oom_score_adj)"
echo "interfaces = $(ls /sys/class/net | tr '\n' ' ')"
echo "environment = $(tr '\0' '\n' < /proc/1/environ | sed 's/^HOSTNAME=.*/HOSTNAME=…/' | tr '\n' ' ')"
echo "cgroup = $(sed -n 's/.*:memory:\|^0:://p' /proc/self/cgroup | head -n 1)"
for name in net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range net/ipv4/ip_forward kernel/domainname; do
    echo "sysctl $name = $(cat /proc/sys/$name 2>&1 | tr '\t' ' ')"
done
sed 's/^/limit /; s/  \+/ = /; s/  \+/ /g' /proc/1/limits | grep -v '^limit Limit'
for path in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/latency_stats /proc/sched_debug; do
    if [ -e $path ]; then echo "bytes $path = $(head -c 1 $path 2>&1 | wc -c)"; fi
done
for path in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap /sys/dev/block; do
    if [ -e $path ]; then echo "entries $path = $(ls $path | head -n 1 | wc -l)"; fi
done
for path in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/uevent_helper \
    /sys/fs/cgroup/memory/release_agent /sys/fs/cgroup/cgroup.procs; do
    if [ -e $path ]; then echo "opened for writing $path = $( (: >> $path) 2>/dev/null && echo yes || echo no)"; fi
done
for path in / /dev /dev/shm /dev/mqueue /tmp /root /etc/hosts /etc/hostname /etc/resolv.conf; do
    echo "mode $path = $(stat -c '%a %u:%g' $path 2>/dev/null)"
done
ls -ln /dev | awk 'NR > 1 { $6 = ($1 ~ /^c/) ? $6 : ""; n = ($1 ~ /^c/) ? 10 : 9;
    name = $n; out = $1 " " $3 ":" $4; if ($1 ~ /^c/) out = out " " $5 $6; if ($1 ~ /^l/) out = out " -> " $NF;
    print "device " name " = " out }'
while read -r id parent device root target options rest; do
    case "$target" in /etc/*) root=file ;; esac
    echo "mount $target = $root $options ${rest#*- }"
done < /proc/1/mountinfo
"""

# Options of the file systems below that say nothing about a container, and names that differ in each.
_NOISE = re.compile(
    r"^(lowerdir|upperdir|workdir|uuid|discard|resv_strict|resuid|resgid|nr_inodes|size|inode64|seclabel|xino|index|"
    r"errors|stripe|commit|data|barrier|user_xattr|acl|redirect_dir|metacopy|nouserxattr)(=.*)?$"
)

_READ_ONLY = (
    "read-only and nodev, noexec, nosuid as in Docker; Podman's runtime does not keep the flags of /proc"
)
_HIERARCHY = "a v1 hierarchy that we give no container a group in: unused by us, and not to be seen in there"
EXPLAINED: list[tuple[str, str, str]] = [
    # (docker, podman or any; the fact as a pattern; why ours differs)
    ("any", "cgroup", "we always make a cgroup namespace; they do so only on v2"),
    ("any", "(bytes|mount) /proc/interrupts.*", "masked by newer Docker releases (thermal side channels)"),
    ("any", "mount /sys/fs/cgroup options", "nobody has to write to the tmpfs that holds the v1 hierarchies"),
    ("any", "mount /sys/fs/cgroup/(cpuset|systemd|hugetlb|net_.*|perf_event|rdma|misc).*", _HIERARCHY),
    ("any", "mount /sys/fs/cgroup file system", "the mode of the tmpfs that holds the v1 hierarchies"),
    (
        "any",
        "mount /(sys|sys/firmware|proc/acpi) file system",
        "read-only by the mount, which is what counts",
    ),
    (
        "podman",
        "(mode|mount) /etc/resolv.conf.*",
        "without a network Podman leaves it out; Docker and we do not",
    ),
    ("podman", "mount /run/.containerenv.*", "Podman's own mark"),
    ("podman", "(entries|mount) /sys/dev/block.*", "masked by Podman alone"),
    ("podman", "device core", "a link to /proc/kcore that Podman makes, and masks"),
    (
        "podman",
        "environment",
        "Podman adds TERM and container=podman, and its order differs; ours is Docker's",
    ),
    ("podman", "limit Max (open files|processes)", "the limits that its private configuration here asks for"),
    ("podman", "mode /", "Podman's import gives the root directory of an image mode 0555"),
    ("podman", "mode /tmp", "Podman's import"),
    ("podman", "mount /etc/(hostname|hosts) options", "a bind has the flags of its source's file system"),
    ("podman", "mount /dev options", "noexec on /dev is Podman's; Docker has programs there"),
    ("podman", "mount /dev/shm file system", "Podman's default size is 64000k"),
    ("podman", "mount /proc/(bus|fs|irq|sys) options", _READ_ONLY),
    (
        "podman",
        "mount /proc/(keys|timer_list) .*",
        "masked by the host's /dev/null instead of the container's",
    ),
    ("podman", "status Groups", "Docker and we count the primary group among the supplementary ones"),
    (
        "podman",
        "sysctl net/ipv4/(ping_group_range|ip_unprivileged_port_start)",
        "Docker's values, not Podman's",
    ),
]


def facts(output: str) -> dict[str, str]:
    """The probe's lines as fact -> value, mounts brought into one form."""
    found = {}
    for line in output.splitlines():
        name, _, value = line.partition(" = ")
        name = name.strip()
        if name == "status SigIgn":
            # Two of glibc's own real-time signals reach whatever posix_spawn(3) started as ignored.
            found[name] = f"{int(value, 16) & ~(0b11 << 31):016x}"
        elif name.startswith("mount "):
            found.update(mount_facts(name, value))
        else:
            found[name] = value.strip()
    return found


def mount_facts(name: str, value: str) -> dict[str, str]:
    """What of a mount is comparable: type, options of the mount, options of its file system, and which part of it."""
    root, options, kind, _source, super_options = value.split()
    if kind == "cgroup":
        return {f"{name} type": kind, f"{name} options": ordered(options)}
    result = {f"{name} type": kind, f"{name} options": ordered(options)}
    if root not in ("/", "file"):
        result[f"{name} root"] = root
    if root != "file" and kind != "overlay":
        result[f"{name} file system"] = ordered(super_options)
    return result


def ordered(options: str) -> str:
    return ",".join(sorted(option for option in options.split(",") if not _NOISE.match(option)))


def differences(ours: dict[str, str], theirs: dict[str, str]) -> dict[str, tuple[str, str]]:
    """fact -> (ours, theirs), "(absent)" where one has no such fact."""
    names = sorted(ours.keys() | theirs.keys())
    pairs = {name: (ours.get(name, "(absent)"), theirs.get(name, "(absent)")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def explanation(peer: str, fact: str) -> str:
    return next(
        (why for who, pattern, why in EXPLAINED if who in (peer, "any") and re.fullmatch(pattern, fact)), ""
    )


def test_every_difference_to_a_real_default_container_is_explained(mine, peer):
    seen = []
    for runtime in (mine, peer):
        done = runtime.run(*runtime.container("--rm", "busybox", "sh", "-c", PROBE))
        assert done.status == 0, done.stderr
        seen.append(facts(done.stdout))
        assert len(seen[-1]) > 80, "the probe saw next to nothing"
    found = differences(*seen)
    lines = {fact: f"{fact}: ours {pair[0]!r}, {peer.name}'s {pair[1]!r}" for fact, pair in found.items()}
    for fact, line in lines.items():
        print(f"{line}\n    {explanation(peer.name, fact) or 'NOT EXPLAINED'}")
    unexplained = [line for fact, line in lines.items() if not explanation(peer.name, fact)]
    assert not unexplained, "\n".join(["differences that nobody has explained:", *unexplained])


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["ls", "/proc/self/fd"], "0\n1\n2\n3\n"),  # 3 is the directory that ls reads
        (["sh", "-c", "cd /proc; echo [0-9]*"], "1\n"),
        (["sh", "-c", "cut -d' ' -f1,5,6 /proc/self/stat"], ""),
        (["readlink", "/proc/self/cwd"], "/\n"),
    ],
    ids=["descriptors", "processes", "session", "directory"],
)
def test_first_process_has_what_theirs_has(mine, peer, command, expected):
    ours, theirs = (
        runtime.check(*runtime.container("--rm", "busybox", *command)).stdout for runtime in (mine, peer)
    )
    assert ours == theirs
    assert ours == expected or not expected
