"""What an image says about itself: its manifest (which layers) and its config (how to run it).

Both are JSON documents addressed by the digest of their exact bytes, and both may come from strangers: sizes, types
and contradictions are checked here before anything acts on them. Used in labs 04 and 09.
Source: OCI image-spec manifest.md, config.md, descriptor.md, image-index.md.
"""

from __future__ import annotations

import json
import os

from minicontainer.errors import MinicontainerError
from minicontainer.image.reference import Value, check_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = LAYER + "+gzip"
LAYER_ZSTD = LAYER + "+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

DOCUMENT_LIMIT = 4 << 20  # bytes of a manifest or a config: distribution-spec asks clients to take 4 MiB
LAYERS_LIMIT = 127  # Docker's; overlayfs itself would take 500

_ARCHITECTURES = {
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "ppc64le": "ppc64le",
    "s390x": "s390x", "riscv64": "riscv64", "loongarch64": "loong64",
}  # fmt: skip


class BadImage(MinicontainerError):
    """An image's own data is wrong: it contradicts itself, its digest, or the specification."""


def architecture() -> str:
    """This machine's architecture in Go's words, which OCI uses ("amd64", "arm64", ...)."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def canonical(document: object) -> bytes:
    """JSON bytes that are the same for the same content, so that the same image gets the same digest."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse_document(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object that may be hostile.

    :raises BadImage: too large, not JSON, nested without end, or not an object.
    """
    if len(data) > DOCUMENT_LIMIT:
        raise BadImage(f"{what} is {len(data)} bytes, more than the limit of {DOCUMENT_LIMIT}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadImage(f"{what} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadImage(f"{what} is not a JSON object")
    return document


class Descriptor(Value):
    """A pointer to a blob: media type, digest, size in bytes, annotations (descriptor.md)."""

    __slots__ = ("annotations", "digest", "media_type", "size")

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str]

    def __init__(
        self, media_type: str, digest: str, size: int, annotations: Mapping[str, str] | None = None
    ) -> None:
        self._set(media_type=media_type, digest=digest, size=size, annotations=dict(annotations or {}))

    @classmethod
    def from_json(cls, data: Any, what: str) -> Descriptor:
        """:raises BadImage: where a required field is missing or of the wrong type, or the digest is malformed."""
        if not isinstance(data, dict):
            raise BadImage(f"{what} is not a descriptor")
        digest, size = data.get("digest"), data.get("size")
        if not isinstance(digest, str) or isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise BadImage(f"{what} lacks a digest or a size")
        if not is_sha256(digest):
            check_digest(digest)
        annotations = data.get("annotations") or {}
        if not isinstance(annotations, dict):
            raise BadImage(f"{what} has annotations that are not an object")
        return cls(str(data.get("mediaType", "")), digest, size, annotations)

    def to_json(self) -> dict[str, Any]:
        """The descriptor as it stands in a manifest or an index."""
        data: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return data | {"annotations": self.annotations} if self.annotations else data


def is_sha256(digest: str) -> bool:
    """The usual digest, checked without a regular expression: this runs at every start of a container."""
    return digest[:7] == "sha256:" and len(digest) == 71 and digest[7:].strip("0123456789abcdef") == ""


def read_manifest(data: bytes, what: str) -> tuple[Descriptor, list[Descriptor]]:
    """The config's and the layers' descriptors of a manifest.

    :raises BadImage: also for a document that is a manifest and an index at once (CVE-2021-41190).
    """
    document = parse_document(data, what)
    if (
        document.get("schemaVersion") != 2
        or "manifests" in document
        or not isinstance(document.get("layers"), list)
    ):
        raise BadImage(f"{what} is not an image manifest of schema version 2")
    if len(document["layers"]) > LAYERS_LIMIT:
        raise BadImage(f"{what} has {len(document['layers'])} layers, more than the limit of {LAYERS_LIMIT}")
    layers = [Descriptor.from_json(layer, f"a layer of {what}") for layer in document["layers"]]
    return Descriptor.from_json(document.get("config"), f"the config of {what}"), layers


def choose_platform(data: bytes, what: str) -> Descriptor:
    """The manifest for this machine out of an image index (image-index.md).

    :raises BadImage: where it has none, or the document is a manifest and an index at once.
    """
    document = parse_document(data, what)
    entries = document.get("manifests")
    if not isinstance(entries, list) or "layers" in document or "config" in document:
        raise BadImage(f"{what} is not an image index")
    for entry in entries:
        platform = entry.get("platform", {}) if isinstance(entry, dict) else {}
        if not isinstance(platform, dict):
            raise BadImage(f"{what} has a platform that is not an object")
        if platform.get("os") == "linux" and platform.get("architecture") == architecture():
            return Descriptor.from_json(entry, f"a manifest of {what}")
    raise BadImage(f"{what} has no image for linux/{architecture()}")


class ImageConfig(Value):
    """How to run an image: the ``config`` part of the image config, with absent parts empty (config.md).

    >>> ImageConfig({"config": {"Cmd": ["sh"], "Env": ["A=1"]}}).cmd
    ('sh',)
    """

    __slots__ = ("_execution", "raw")

    # The whole document, for what has no property here: history, Healthcheck, OnBuild, Shell.
    raw: Mapping[str, Any]
    _execution: dict[str, Any]

    def __init__(self, raw: Mapping[str, Any]) -> None:
        execution = raw.get("config") or {}
        if not isinstance(execution, dict):
            raise BadImage("the image's config part is not an object")
        self._set(raw=raw, _execution=execution)

    def _strings(self, key: str) -> tuple[str, ...]:
        value = self._execution.get(key) or ()
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise BadImage(f"{key} in the image's config is not a list of strings")
        return tuple(value)

    def _text(self, key: str) -> str:
        value = self._execution.get(key) or ""
        if not isinstance(value, str):
            raise BadImage(f"{key} in the image's config is not a string")
        return value

    def _names(self, key: str) -> tuple[str, ...]:
        value = self._execution.get(key) or {}
        if not isinstance(value, dict):
            raise BadImage(f"{key} in the image's config is not an object")
        return tuple(sorted(value))

    @property
    def env(self) -> tuple[str, ...]:
        """``NAME=value`` items."""
        return self._strings("Env")

    @property
    def cmd(self) -> tuple[str, ...]:
        """The default command, or the entry point's default arguments."""
        return self._strings("Cmd")

    @property
    def entrypoint(self) -> tuple[str, ...]:
        """What is run with the command as its arguments."""
        return self._strings("Entrypoint")

    @property
    def working_dir(self) -> str:
        """The process's directory; "" means "/"."""
        return self._text("WorkingDir")

    @property
    def user(self) -> str:
        """``user[:group]``, names or numbers; "" means root."""
        return self._text("User")

    @property
    def labels(self) -> dict[str, str]:
        """A copy of the labels."""
        labels = self._execution.get("Labels") or {}
        if not isinstance(labels, dict):
            raise BadImage("Labels in the image's config is not an object")
        return {str(name): str(value) for name, value in labels.items()}

    @property
    def exposed_ports(self) -> tuple[str, ...]:
        """``80/tcp`` items, sorted."""
        return self._names("ExposedPorts")

    @property
    def volumes(self) -> tuple[str, ...]:
        """Paths that should be volumes, sorted."""
        return self._names("Volumes")

    @property
    def stop_signal(self) -> str:
        """The signal that asks the program to end; "" means SIGTERM."""
        return self._text("StopSignal")


class Image(Value):
    """One image of the store, as it was when it was looked up; equal by id."""

    __slots__ = ("config", "diff_ids", "id", "layers", "manifest_digest", "references", "size")

    id: str  # digest of the config document: what Docker calls the image id
    references: tuple[str, ...]  # "busybox:latest", sorted
    manifest_digest: str
    layers: tuple[Descriptor, ...]  # the archives, the lowest first
    diff_ids: tuple[str, ...]  # digests of the plain archives, the lowest first
    config: ImageConfig
    size: int  # bytes of the layers, uncompressed where that is known

    def __init__(
        self,
        image_id: str,
        references: tuple[str, ...],
        manifest_digest: str,
        layers: tuple[Descriptor, ...],
        raw_config: Mapping[str, Any],
        size: int | None = None,
    ) -> None:
        rootfs = raw_config.get("rootfs")
        diff_ids = (
            rootfs.get("diff_ids") if isinstance(rootfs, dict) and rootfs.get("type") == "layers" else None
        )
        if not isinstance(diff_ids, list) or not all(
            isinstance(item, str) and is_sha256(item) for item in diff_ids
        ):
            raise BadImage(f"the config {image_id} has no rootfs of type layers with sha256 diff ids")
        if len(diff_ids) != len(layers):
            raise BadImage(
                f"the config {image_id} names {len(diff_ids)} layers and its manifest {len(layers)}"
            )
        self._set(
            id=image_id,
            references=references,
            manifest_digest=manifest_digest,
            layers=layers,
            diff_ids=tuple(diff_ids),
            config=ImageConfig(raw_config),
            size=sum(layer.size for layer in layers) if size is None else size,
        )

    @property
    def short_id(self) -> str:
        """The 12 digits that tables show."""
        return self.id.partition(":")[2][:12]

    @property
    def created(self) -> str:
        """When the image was made, RFC 3339; "" where it does not say."""
        return str(self.config.raw.get("created") or "")

    @property
    def architecture(self) -> str:
        """In Go's words: "amd64"."""
        return str(self.config.raw.get("architecture") or "")

    @property
    def chain_ids(self) -> list[str]:
        """Identities of the stacks: of the lowest layer alone, of the lowest two, and so on (config.md, ChainID)."""
        from hashlib import sha256

        chain: list[str] = []
        for diff_id in self.diff_ids:
            chain.append(
                "sha256:" + sha256(f"{chain[-1]} {diff_id}".encode()).hexdigest() if chain else diff_id
            )
        return chain

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Image({self.short_id}, {', '.join(self.references) or '<none>'})"
