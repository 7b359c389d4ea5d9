"""The store: an OCI image layout on disk, and its layers unpacked beside it.

::

    images/oci-layout, images/index.json     which images there are, under which names (skopeo reads it in place)
    images/blobs/sha256/<hex>                manifests, configs, layer archives
    layers/<diff id>/                        a layer ready to be stacked by overlayfs
    layers/chain-<chain id>/                 the same, where unpacking it depended on the layers below

index.json is replaced whole, under a lock; what nothing in it leads to is garbage. Whoever adds or unpacks holds
`gc.lock` shared, whoever collects garbage holds it alone, so half-made things are never taken for garbage, and what a
killed process left always is. Built in labs 04 and 09. Source: OCI image-spec image-layout.md; man 2 flock.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from minicontainer import paths
from minicontainer.errors import ImageNotFound, UsageError
from minicontainer.image.blobs import Blobs, BlobWriter
from minicontainer.image.config import (
    CONFIG,
    DOCKER_LIST,
    INDEX,
    MANIFEST,
    BadImage,
    Descriptor,
    Image,
    architecture,
    canonical,
    choose_platform,
    parse_document,
    read_manifest,
)
from minicontainer.image.index import REF_NAME, SIZE, Index, enter, names_of, repository
from minicontainer.image.reference import Reference
from minicontainer.image.removal import Use, names_to_remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEX = frozenset("0123456789abcdef")


class Store:
    """The images below one data directory (default: :func:`minicontainer.paths.data_root`).

    >>> store = Store()                                                    # doctest: +SKIP
    >>> image = store.resolve("busybox")                                   # doctest: +SKIP
    >>> store.layer_paths(image)                                           # doctest: +SKIP
    [PosixPath('/var/lib/minicontainer/layers/6f1e…')]
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root) if root is not None else paths.data_root()
        self.layout = self.root / "images"
        self.layers = self.root / "layers"
        self.blobs = Blobs(self.layout)
        self.index = Index(self.layout)

    # Looking

    def images(self, on_damage: Callable[[BadImage], None] | None = None) -> list[Image]:
        """All images, the newest first; one without a name is there with no references.

        :param on_damage: is told of each image that cannot be read, and the others are returned.
        :raises BadImage: where there is such an image and nobody to tell.
        """
        found = []
        for digest, entries in self._by_manifest().items():
            try:
                found.append(self._load(digest, entries))
            except BadImage as error:
                if on_damage is None:
                    raise
                on_damage(error)
        return sorted(found, key=lambda image: (image.created, image.references), reverse=True)

    def resolve(self, name: str) -> Image:
        """The image called `name`: a reference, an id, or the beginning of an id, as Docker resolves it.

        :raises ImageNotFound: where there is none, or the beginning of an id fits several.
        """
        groups = self._by_manifest()
        digest = self._find(name, groups)
        if digest is None:
            shown = name
            if not name.startswith("sha256:"):
                try:
                    shown = Reference.parse(name).familiar()
                except UsageError:
                    if not _HEX.issuperset(name):
                        raise
            raise ImageNotFound(
                f"No such image: {shown}",
                hint="`minicontainer images` lists what there is; `minicontainer base` makes busybox:latest",
            )
        return self._load(digest, groups[digest])

    def _find(self, name: str, groups: Mapping[str, list[Descriptor]]) -> str | None:
        """The manifest digest that `name` leads to. The usual name is found without parsing it."""
        names = {ref: digest for digest, entries in groups.items() for ref in names_of(entries)}
        for guess in (name, f"{name}:latest"):
            if guess in names:
                return names[guess]
        digits = name.removeprefix("sha256:")
        if len(digits) < 64 or not _HEX.issuperset(digits):
            try:
                reference = Reference.parse(name)
            except UsageError:
                reference = None
            if reference is not None and reference.digest is not None:
                wanted = reference.familiar_name
                same = [ref for ref, digest in names.items() if digest == reference.digest]
                return reference.digest if any(repository(ref) == wanted for ref in same) else None
            if reference is not None and reference.familiar() in names:
                return names[reference.familiar()]
        if not digits or not _HEX.issuperset(digits):
            return None
        ids = {}
        for digest in groups:
            try:
                ids[self._config_digest(digest)] = digest
            except BadImage:
                continue  # it has no id to be found by
        hits = [image_id for image_id in ids if image_id.startswith(f"sha256:{digits}")]
        if len(hits) > 1:
            raise ImageNotFound(
                f"multiple IDs found with provided prefix: {name}",
                hint="give more digits: " + ", ".join(sorted(hit[7:23] for hit in hits)),
            )
        return ids[hits[0]] if hits else None

    def _by_manifest(self) -> dict[str, list[Descriptor]]:
        """The index's entries, by the digest of the manifest they point to."""
        groups: dict[str, list[Descriptor]] = {}
        for entry in self.index.read():
            groups.setdefault(entry.digest, []).append(entry)
        return groups

    def _manifest(self, digest: str) -> tuple[str, Descriptor, list[Descriptor]]:
        """Digest, config and layers of an image manifest, through an index for several platforms where it is one."""
        data = self.blobs.read(digest)
        if b'"manifests"' in data:
            media_type = parse_document(data, f"manifest {digest}").get("mediaType", INDEX)
            if media_type in (INDEX, DOCKER_LIST):
                digest = choose_platform(data, f"index {digest}").digest
                data = self.blobs.read(digest)
        return digest, *read_manifest(data, f"manifest {digest}")

    def _config_digest(self, digest: str) -> str:
        return self._manifest(digest)[1].digest

    def _load(self, digest: str, entries: list[Descriptor]) -> Image:
        names = tuple(sorted(names_of(entries)))
        try:
            return self._read(digest, entries, names)
        except BadImage as error:
            called = names[0] if names else digest
            hint = f"`minicontainer rmi {called}`, then add or pull it again" if names else error.hint
            raise BadImage(f"image {called}: {error}", hint=hint) from error

    def _read(self, digest: str, entries: list[Descriptor], names: tuple[str, ...]) -> Image:
        _digest, config, layers = self._manifest(digest)
        raw = parse_document(self.blobs.read(config.digest), f"config {config.digest}")
        sizes = [entry.annotations[SIZE] for entry in entries if entry.annotations.get(SIZE, "").isdigit()]
        size = int(sizes[0]) if sizes else None
        return Image(config.digest, names, digest, tuple(layers), raw, size)

    # Changing

    def add(
        self, reference: Reference | str | None, layers: Sequence[Path | str], config: Mapping[str, Any]
    ) -> Image:
        """Add an image made of layer archives, the lowest first, and give it a name.

        :param reference: its name, taken from the image that had it; None adds an image without a name.
        :param layers: tar files, plain or compressed; they are stored as they are.
        :param config: the OCI image config (``{"config": {"Cmd": …}, "created": …}``); rootfs is filled in.
        """
        from minicontainer.image.limits import LIMITS
        from minicontainer.image.stream import PlainStream

        with self._adding():
            descriptors, diff_ids, size = [], [], 0
            for path in layers:
                writer = BlobWriter(self.blobs)
                with (
                    writer,
                    open(path, "rb") as file,
                    PlainStream(file, limit=LIMITS.size, tee=writer.write) as plain,
                ):
                    plain.drain()
                    digest = writer.commit()
                descriptors.append(Descriptor(plain.media_type, digest, writer.size))
                diff_ids.append(plain.diff_id)
                size += plain.size
            document = {"architecture": architecture(), "os": "linux", **config}
            document["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
            data = canonical(document)
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": Descriptor(CONFIG, self.blobs.put(data), len(data)).to_json(),
                "layers": [descriptor.to_json() for descriptor in descriptors],
            }
            return self._register(reference, canonical(manifest), size)

    def _register(self, reference: Reference | str | None, manifest: bytes, size: int | None) -> Image:
        """Store a manifest whose blobs are there, and enter it into the index; the caller holds `_adding`."""
        digest = self.blobs.put(manifest)
        annotations = {} if size is None else {SIZE: str(size)}
        entry = Descriptor(MANIFEST, digest, len(manifest), annotations)
        with self.index.change() as entries:
            enter(entries, entry, _parse(reference) if reference is not None else None)
            same = [entry for entry in entries if entry.digest == digest]
        return self._load(digest, same)

    def tag(self, source: str, target: Reference | str) -> Image:
        """Give the image `source` one more name, `target`, taking it from the image that had it."""
        reference = _parse(target)
        image = self.resolve(source)
        with self.index.change() as entries:
            old = next((entry for entry in entries if entry.digest == image.manifest_digest), None)
            if old is None:
                raise ImageNotFound(f"No such image: {source}", hint="it was removed just now")
            annotations = {key: value for key, value in old.annotations.items() if key != REF_NAME}
            enter(entries, Descriptor(old.media_type, old.digest, old.size, annotations), reference)
        return self.resolve(reference.familiar())

    def remove(self, name: str, *, force: bool = False, used_by: Iterable[Use | str] = ()) -> list[str]:
        """Remove a name, and the image with its last one; what only it used is deleted. As `docker rmi`.

        :param used_by: the containers there are; an image id stands for a stopped one.
        :param force: also where several repositories or a stopped container refer to it; for a stopped container's
            sake the image then stays, without a name.
        :returns: Docker's lines: ``Untagged: …``, ``Deleted: …``.
        :raises MinicontainerError: "conflict: …" (exit code 1) where something still refers to it.
        """
        try:
            image = self.resolve(name)
        except BadImage as error:
            return self._remove_damaged(name, error)
        uses = [use if isinstance(use, Use) else Use(use) for use in used_by]
        uses = [use for use in uses if use.image == image.id]
        going, by_id = names_to_remove(image, name, uses, force)
        with self.index.change() as entries:
            ours = [entry for entry in entries if entry.digest == image.manifest_digest]
            for entry in ours:
                if entry.annotations.get(REF_NAME) in going or (by_id and REF_NAME not in entry.annotations):
                    entries.remove(entry)
            left = any(entry.digest == image.manifest_digest for entry in entries)
            if not left and uses and ours:
                enter(entries, ours[0], None)
                left = True
        lines = [f"Untagged: {ref}" for ref in going if ref in names_of(ours)]
        if not left:
            used = {chain for other in self.images(lambda _damage: None) for chain in other.chain_ids}
            lines.append(f"Deleted: {image.id}")
            lines += [f"Deleted: {chain}" for chain in reversed(image.chain_ids) if chain not in used]
            self.collect()
        return lines

    def _remove_damaged(self, name: str, damage: BadImage) -> list[str]:
        """Take the name off an image that cannot be read, which is all that can be known about it."""
        wanted = Reference.parse(name).familiar()
        with self.index.change() as entries:
            damaged = [entry for entry in entries if entry.annotations.get(REF_NAME) == wanted]
            if not damaged:
                raise damage
            for entry in damaged:
                entries.remove(entry)
        self.collect()
        return [f"Untagged: {wanted}"]

    # Unpacked layers

    def layer_paths(self, image: Image) -> list[Path]:
        """The image's layers as directories, the topmost first, unpacked where they are not yet.

        :raises BadImage: a layer is damaged, or is not what the config says.
        """
        found: list[Path] = []
        for index, diff_id in enumerate(image.diff_ids):
            path = self.layers / diff_id[7:]
            if not os.path.isdir(path):
                path = self.layers / f"chain-{image.chain_ids[index][7:]}"
                if not os.path.isdir(path):
                    path = self._unpack(image, index, found)
            found.insert(0, path)
        return found

    def _unpack(self, image: Image, index: int, lower: Sequence[Path]) -> Path:
        """Unpack one layer: beside its place, and moved there when it is complete and its digest is right."""
        from minicontainer.image.layers import unpack
        from minicontainer.image.remove import remove_tree

        diff_id, name = image.diff_ids[index], image.diff_ids[index][7:]
        chain = f"chain-{image.chain_ids[index][7:]}"
        with self._adding(), paths.lock(self.layers / f"{name}.lock"):
            for candidate in (name, chain):
                if (self.layers / candidate).is_dir():
                    return self.layers / candidate  # somebody else unpacked it while we waited
            for stale in self.layers.glob(f"{name}.tmp-*"):
                remove_tree(stale)
            temporary = self.layers / f"{name}.tmp-{os.getpid()}-{os.urandom(4).hex()}"
            temporary.mkdir(mode=0o700)
            try:
                with self.blobs.open(image.layers[index].digest) as file:
                    result = unpack(file, temporary, lower=lower)
                if result.diff_id != diff_id:
                    raise BadImage(
                        f"layer {diff_id} is damaged: its content is {result.diff_id}",
                        hint=f"remove the image {image.short_id} and add or pull it again",
                    )
                final = self.layers / (chain if result.leans else name)
                os.rename(temporary, final)
            except BaseException:
                remove_tree(temporary)
                raise
            return final

    # Locks and garbage

    @contextmanager
    def _adding(self) -> Iterator[None]:
        """Hold off the garbage collection while blobs or layers are there that nothing refers to yet."""
        self._prepare()
        with paths.lock(self.layout / "gc.lock", shared=True):
            yield
        if (self.layout / "gc.wanted").exists():
            self.collect()

    def _prepare(self) -> None:
        """Make the directories and the two files that say what this is."""
        if self.index.exists() and self.layers.is_dir():
            return
        paths.private_directory(self.root)
        for directory in (self.layout, self.blobs.directory, self.layers):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths.write_whole(self.layout / "oci-layout", '{"imageLayoutVersion":"1.0.0"}')
        self.index.create()

    def collect(self) -> int:
        """Delete blobs and unpacked layers that no image refers to, and what killed processes left.

        While somebody adds or unpacks, nothing is deleted; the last of them does it afterwards.

        :returns: how many blobs and layers were deleted.
        """
        if not self.layout.is_dir():
            return 0
        from minicontainer.image.remove import remove_tree

        wanted = self.layout / "gc.wanted"
        wanted.touch()
        with open(self.layout / "gc.lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK:
                    raise
                return 0
            wanted.unlink(missing_ok=True)
            try:
                blobs, layers = self._live()
            except BadImage:
                return 0  # what a damaged image needs is not known: nothing goes until it is gone itself
            garbage = [path for path in self.blobs.directory.iterdir() if path.name not in blobs]
            garbage += self.blobs.ingest.iterdir() if self.blobs.ingest.is_dir() else []
            for path in garbage:
                path.unlink()
            dead = [
                path
                for path in self.layers.iterdir()
                if _is_layer_name(path.name) and path.name.removesuffix(".lock") not in layers
            ]
            for path in dead:
                if path.is_dir():
                    # Out of its place first: a half-removed layer must not count as one.
                    leaving = (
                        path if ".tmp-" in path.name else path.rename(f"{path}.tmp-{os.urandom(4).hex()}")
                    )
                    remove_tree(leaving)
                else:
                    path.unlink()
            return len(garbage) + sum(not path.name.endswith(".lock") for path in dead)

    def _live(self) -> tuple[set[str], set[str]]:
        """The names of the blobs and of the layer directories that the index leads to."""
        blobs: set[str] = set()
        layers: set[str] = set()
        for digest, entries in self._by_manifest().items():
            manifest, config, descriptors = self._manifest(digest)
            blobs.update(
                item[7:] for item in (digest, manifest, config.digest, *(one.digest for one in descriptors))
            )
            image = self._load(digest, entries)
            layers.update(diff_id[7:] for diff_id in image.diff_ids)
            layers.update(f"chain-{chain[7:]}" for chain in image.chain_ids)
        return blobs, layers


def _parse(reference: Reference | str) -> Reference:
    parsed = Reference.parse(reference) if isinstance(reference, str) else reference
    if parsed.digest is not None:
        raise UsageError(
            f"invalid reference format: {parsed.familiar()} has a digest, and a digest cannot be given to an image",
            hint="name it repository[:tag]",
        )
    return parsed


def _is_layer_name(name: str) -> bool:
    """Whether a file in the layers directory is the store's; the containers' common lowest layer is not."""
    digits = name.partition(".")[0].removeprefix("chain-")
    return len(digits) == 64 and _HEX.issuperset(digits)
