"""Image names by Docker's rules; the tables follow the grammar of distribution/reference."""

from __future__ import annotations

import pytest

from minicontainer.errors import UsageError
from minicontainer.image.reference import Reference

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"

GOOD = [
    # as written, normalised, as Docker prints it
    ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
    ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
    ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
    ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
    ("docker.io/library/busybox:1", "docker.io/library/busybox:1", "busybox:1"),
    ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
    ("user/app", "docker.io/user/app:latest", "user/app:latest"),
    ("docker.io/user/app", "docker.io/user/app:latest", "user/app:latest"),
    ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
    ("ghcr.io/user/app:v1", "ghcr.io/user/app:v1", "ghcr.io/user/app:v1"),
    ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
    ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
    ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
    ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
    ("[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app:latest", "[2001:db8::1]:5000/app:latest"),
    ("REGISTRY/app", "REGISTRY/app:latest", "REGISTRY/app:latest"),
    ("Registry.Example/app", "Registry.Example/app:latest", "Registry.Example/app:latest"),
    ("a_b/x", "docker.io/a_b/x:latest", "a_b/x:latest"),
    ("a__b.c-d---e", "docker.io/library/a__b.c-d---e:latest", "a__b.c-d---e:latest"),
    ("x:Tag_1.2-3", "docker.io/library/x:Tag_1.2-3", "x:Tag_1.2-3"),
    ("x:_", "docker.io/library/x:_", "x:_"),
    ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
    (f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}", f"x@{DIGEST}"),
    (f"x:1@{DIGEST}", f"docker.io/library/x:1@{DIGEST}", f"x:1@{DIGEST}"),
    (f"{HEX}x", f"docker.io/library/{HEX}x:latest", f"{HEX}x:latest"),
    ("a" * 237, "docker.io/library/" + "a" * 237 + ":latest", "a" * 237 + ":latest"),
]

BAD = [
    "", " ", ":", "@", "/", ":tag", "@" + DIGEST, "x:", "x@", "x:-tag", "x:.tag", "x:" + "t" * 129, "x:a:b", "x y",
    "Busybox", "user/App", "x/", "/x", "a//b", "a/./b", "a/../b", "../x", "-x", "x-", ".x", "x.", "_x", "x_", "a___b",
    "a..b", "a._b", "a-_b", "x\n", "x\0", "bücher", "a:b/c", "http://x/y", "https://ghcr.io/x", "-r.io/x", "r-.io/x",
    "r.io:port/x", "[::1/x", "r..io/x", HEX, f"x@sha256:{HEX[:-1]}", f"x@sha256:{HEX}0", f"x@sha256:{HEX.upper()}",
    f"x@md5:{HEX}", "x@sha256:../../etc/passwd", f"x@{DIGEST}@{DIGEST}", f"x@{DIGEST}:tag",
    "a.b_c/x", "a" * 238,
]  # fmt: skip


@pytest.mark.parametrize(("text", "normal", "familiar"), GOOD)
def test_reference_is_normalised_as_docker_does(text, normal, familiar):
    reference = Reference.parse(text)
    assert str(reference) == normal
    assert reference.familiar() == familiar
    assert Reference.parse(normal) == reference == Reference.parse(familiar)
    assert len({reference, Reference.parse(normal)}) == 1


@pytest.mark.parametrize("text", BAD)
def test_what_docker_refuses_is_refused(text):
    with pytest.raises(UsageError, match="^invalid re") as caught:
        Reference.parse(text)
    assert "\n" not in str(caught.value), "an error is one line"
    assert caught.value.hint


def test_parts_of_a_reference():
    reference = Reference.parse(f"localhost:5000/a/b:tag@{DIGEST}")
    assert (reference.registry, reference.repository) == ("localhost:5000", "a/b")
    assert (reference.tag, reference.digest) == ("tag", DIGEST)
    assert Reference.parse(f"x@{DIGEST}").tag is None, "a digest leaves nothing for latest to choose"
    assert str(reference.with_tag("other")) == "localhost:5000/a/b:other"


def test_reference_cannot_be_changed():
    with pytest.raises(AttributeError, match="cannot be changed"):
        Reference.parse("x").tag = "other"  # type: ignore[misc]
