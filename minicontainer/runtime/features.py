"""What this runtime can do, as OCI features JSON. Lab 15. OCI runtime-spec features.md and features-linux.md."""

from __future__ import annotations

from typing import Any

from minicontainer.linux.capability import NAMES
from minicontainer.linux.namespace import FLAGS
from minicontainer.runtime import mounts, seccomp
from minicontainer.runtime.spec import OCI_VERSION


def features() -> dict[str, Any]:
    """The features object, filled from the tables the runtime itself works with."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mounts.known_options(),
        "linux": {
            "namespaces": sorted(FLAGS),
            "capabilities": list(NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False},
            "seccomp": {"enabled": True, **seccomp.known()},
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
        },
    }
