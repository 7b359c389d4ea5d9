"""The store: images by every kind of name, removal in Docker's words, damage noticed, many processes at once."""

from __future__ import annotations

import fcntl
import gzip
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minicontainer.errors import ImageNotFound, MinicontainerError, UsageError
from minicontainer.image import config as image_config
from minicontainer.image.blobs import digest_of
from minicontainer.image.config import BadImage, ImageConfig
from minicontainer.image.pack import TarWriter
from minicontainer.image.removal import Use
from minicontainer.image.remove import remove_tree
from minicontainer.image.store import Store
from minicontainer.image.tar import DIRECTORY, LINK, Entry


def tar_file(path: Path, *items: tuple[Entry, bytes] | Entry, compress: bool = False) -> Path:
    with open(path, "wb") as file:
        writer = TarWriter(file)
        for item in items:
            entry, content = item if isinstance(item, tuple) else (item, b"")
            writer.add(entry, content)
        writer.close()
    if compress:
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return path


@pytest.fixture
def store(tmp_path: Path):
    made = Store(tmp_path / "data")
    yield made
    remove_tree(tmp_path / "data")


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    return tar_file(
        tmp_path / "layer.tar", Entry(b"etc", DIRECTORY, mode=0o755), (Entry(b"etc/name"), b"one")
    )


def blobs(store: Store) -> set[str]:
    return {path.name for path in store.blobs.directory.iterdir()}


def unpacked(store: Store) -> set[str]:
    return {path.name for path in store.layers.iterdir() if not path.name.endswith(".lock")}


CONFIG = {"created": "2024-01-02T03:04:05Z", "config": {"Cmd": ["sh"], "Env": ["A=1"], "WorkingDir": "/w"}}


# Names


def test_image_is_found_by_every_kind_of_name(store, layer):
    image = store.add("busybox", [layer], CONFIG)
    assert image.references == ("busybox:latest",)
    for name in (
        "busybox", "busybox:latest", "docker.io/busybox", "docker.io/library/busybox:latest", "library/busybox",
        image.id, image.id[7:], image.short_id, image.id[7:10], image.id[:20], f"busybox@{image.manifest_digest}",
    ):  # fmt: skip
        assert store.resolve(name) == image, name


@pytest.mark.parametrize(
    ("name", "shown"),
    [("nosuch", "nosuch:latest"), ("nosuch:1", "nosuch:1"), ("docker.io/library/nosuch", "nosuch:latest"),
     ("sha256:" + "0" * 64, "sha256:" + "0" * 64), ("0" * 64, "0" * 64), ("busybox:other", "busybox:other"),
     ("busybox@sha256:" + "0" * 64, "busybox@sha256:" + "0" * 64), ("abcdef", "abcdef:latest")],
)  # fmt: skip
def test_unknown_image_is_a_clear_error(store, layer, name, shown):
    store.add("busybox", [layer], CONFIG)
    with pytest.raises(ImageNotFound) as caught:
        store.resolve(name)
    assert str(caught.value) == f"No such image: {shown}"
    assert caught.value.hint and caught.value.exit_code == 125


def test_digest_reference_needs_its_own_repository(store, layer):
    image = store.add("one", [layer], CONFIG)
    with pytest.raises(ImageNotFound):
        store.resolve(f"other@{image.manifest_digest}")


def test_bad_reference_is_said_to_be_bad(store):
    with pytest.raises(UsageError, match="invalid reference format"):
        store.resolve("Not a Name")


def test_empty_store_has_no_images(store):
    assert store.images() == []
    assert store.collect() == 0
    assert not store.root.exists(), "looking makes nothing"


def test_beginning_of_an_id_has_to_be_unambiguous(store, layer):
    made = [store.add(f"i{number}", [layer], {**CONFIG, "author": str(number)}) for number in range(17)]
    digit = next(d for d in "0123456789abcdef" if sum(image.id[7] == d for image in made) > 1)
    with pytest.raises(ImageNotFound, match=f"multiple IDs found with provided prefix: {digit}"):
        store.resolve(digit)


def test_name_wins_over_the_beginning_of_an_id(store, layer):
    image = store.add("x", [layer], CONFIG)
    other = store.add(image.id[7:12], [layer], {**CONFIG, "author": "other"})
    assert store.resolve(image.id[7:12]) == other
    assert store.resolve(image.id[7:13]) == image


def test_name_moves_to_the_newer_image_and_the_older_stays_without_one(store, layer):
    old = store.add("app", [layer], CONFIG)
    new = store.add("app", [layer], {**CONFIG, "created": "2025-01-01T00:00:00Z"})
    assert store.resolve("app") == new != old
    assert [image.references for image in store.images()] == [("app:latest",), ()]
    assert store.resolve(old.id) == old


def test_tag_gives_one_more_name(store, layer):
    image = store.add("a", [layer], CONFIG)
    assert store.tag("a", "registry.example:5000/b:2").references == ("a:latest", "registry.example:5000/b:2")
    assert store.resolve("registry.example:5000/b:2") == image
    assert len(store.images()) == 1
    with pytest.raises(UsageError, match="digest"):
        store.tag("a", f"x@{image.manifest_digest}")


def test_what_an_image_says_about_itself(store, layer):
    raw = {
        "created": "2024-01-02T03:04:05Z",
        "config": {
            "Env": ["A=1"], "Cmd": ["c"], "Entrypoint": ["e"], "WorkingDir": "/w", "User": "1:2", "Labels": {"l": "v"},
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}}, "Volumes": {"/v": {}}, "StopSignal": "SIGQUIT",
        },
    }  # fmt: skip
    image = store.add("x", [layer], raw)
    had = image.config
    assert (had.env, had.cmd, had.entrypoint, had.working_dir) == (("A=1",), ("c",), ("e",), "/w")
    assert (had.user, had.labels, had.exposed_ports) == ("1:2", {"l": "v"}, ("443/tcp", "80/tcp"))
    assert (had.volumes, had.stop_signal, image.created) == (("/v",), "SIGQUIT", "2024-01-02T03:04:05Z")
    assert image.size == layer.stat().st_size
    assert image.architecture == image_config.architecture()
    with pytest.raises(AttributeError):
        image.size = 0
    empty = ImageConfig({})
    assert (empty.env, empty.cmd, empty.labels, empty.stop_signal) == ((), (), {}, "")


def test_same_content_is_the_same_image_and_is_stored_once(store, layer, tmp_path):
    first = store.add("a", [layer], CONFIG)
    before = blobs(store)
    assert store.add("b", [shutil.copy(layer, tmp_path / "copy.tar")], CONFIG).id == first.id
    assert blobs(store) == before
    assert store.resolve("a").references == ("a:latest", "b:latest")


def test_size_is_that_of_the_plain_layers(store, tmp_path):
    plain = tar_file(tmp_path / "p.tar", (Entry(b"zeros"), bytes(100_000)))
    packed = tar_file(tmp_path / "z.tar", (Entry(b"zeros"), bytes(100_000)), compress=True)
    one, two = store.add("one", [plain], CONFIG), store.add("two", [packed], CONFIG)
    assert one.size == two.size == plain.stat().st_size
    assert one.diff_ids == two.diff_ids
    assert two.layers[0].media_type.endswith("tar+gzip") and two.layers[0].size < 10_000


# Removal, in Docker's words


def test_remove_by_name_untags_and_deletes(store, layer):
    image = store.add("app:1", [layer], CONFIG)
    store.layer_paths(image)
    lines = store.remove("app:1")
    assert lines == ["Untagged: app:1", f"Deleted: {image.id}", f"Deleted: {image.chain_ids[0]}"]
    assert (blobs(store), unpacked(store), store.images()) == (set(), set(), [])


def test_remove_of_one_of_two_names_only_untags(store, layer):
    image = store.add("a", [layer], CONFIG)
    store.tag("a", "b")
    assert store.remove("a") == ["Untagged: a:latest"]
    assert store.resolve("b") == image
    assert store.remove(image.short_id)[0] == "Untagged: b:latest"


def test_remove_by_id_takes_all_names_of_one_repository(store, layer):
    image = store.add("a:1", [layer], CONFIG)
    store.tag("a:1", "a:2")
    assert store.remove(image.id)[:3] == ["Untagged: a:1", "Untagged: a:2", f"Deleted: {image.id}"]


def test_remove_by_id_of_names_in_several_repositories_has_to_be_forced(store, layer):
    image = store.add("a", [layer], CONFIG)
    store.tag("a", "b")
    message = rf"conflict: unable to delete {image.short_id} \(must be forced\) - image is referenced in multiple rep"
    with pytest.raises(MinicontainerError, match=message) as caught:
        store.remove(image.short_id)
    assert caught.value.exit_code == 1
    assert store.resolve("a").references == ("a:latest", "b:latest")
    assert store.remove(image.short_id, force=True)[:2] == ["Untagged: a:latest", "Untagged: b:latest"]


def test_remove_of_a_used_image_is_refused_in_dockers_words(store, layer):
    image = store.add("app", [layer], CONFIG)
    container = "0123456789abcdef"
    with pytest.raises(MinicontainerError) as caught:
        store.remove("app", used_by=[Use(image.id, container)])
    assert str(caught.value) == (
        'conflict: unable to remove repository reference "app" (must force) - container 0123456789ab '
        f"is using its referenced image {image.short_id}"
    )
    with pytest.raises(
        MinicontainerError, match=r"\(must be forced\) - image is being used by stopped container 0123"
    ):
        store.remove(image.id, used_by=[Use(image.id, container)])
    for force in (False, True):
        with pytest.raises(
            MinicontainerError, match=r"\(cannot be forced\) - image is being used by running cont"
        ):
            store.remove(image.id, force=force, used_by=[Use(image.id, container, running=True)])
    with pytest.raises(MinicontainerError, match="cannot be forced"):
        store.remove("app", force=True, used_by=[Use(image.id, container, running=True)])
    assert store.resolve("app") == image
    assert store.remove("app", used_by=[Use("sha256:" + "0" * 64, container)]), (
        "another image's container is no reason"
    )


def test_forced_removal_keeps_what_a_stopped_container_stands_on(store, layer):
    image = store.add("app", [layer], CONFIG)
    (path,) = store.layer_paths(image)
    assert store.remove("app", force=True, used_by=[image.id]) == ["Untagged: app:latest"]
    assert path.is_dir() and store.resolve(image.id).references == ()
    assert store.remove(image.short_id)[0] == f"Deleted: {image.id}"
    assert not path.exists()


def test_remove_leaves_what_other_images_share(store, layer, tmp_path):
    top = tar_file(tmp_path / "top.tar", (Entry(b"top"), b"x"))
    base = store.add("base", [layer], CONFIG)
    child = store.add("child", [layer, top], CONFIG)
    base_paths, child_paths = store.layer_paths(base), store.layer_paths(child)
    assert child_paths[1:] == base_paths
    assert store.remove("child")[1:] == [f"Deleted: {child.id}", f"Deleted: {child.chain_ids[1]}"]
    assert base_paths[0].is_dir() and not child_paths[0].exists()
    assert store.layer_paths(store.resolve("base")) == base_paths
    assert (base_paths[0] / "etc/name").read_text() == "one"


def test_remove_of_an_unknown_image(store, layer):
    store.add("a", [layer], CONFIG)
    with pytest.raises(ImageNotFound, match="No such image: nosuch:latest"):
        store.remove("nosuch")


# Unpacked layers


def test_layers_come_topmost_first_and_are_unpacked_once(store, layer, tmp_path):
    top = tar_file(tmp_path / "top.tar", (Entry(b"top"), b"x"), compress=True)
    image = store.add("x", [layer, top], CONFIG)
    first, second = store.layer_paths(image)
    assert (first / "top").exists() and (second / "etc/name").exists()
    assert [path.name for path in (second, first)] == [diff_id[7:] for diff_id in image.diff_ids]
    marks = [path.stat().st_ino for path in (first, second)]
    assert [path.stat().st_ino for path in store.layer_paths(image)] == marks


def test_layer_that_leans_on_those_below_is_not_shared_between_stacks(store, tmp_path):
    one = tar_file(tmp_path / "1.tar", (Entry(b"f"), b"one"))
    two = tar_file(tmp_path / "2.tar", (Entry(b"f"), b"two"))
    leaning = tar_file(tmp_path / "l.tar", Entry(b"copy", LINK, linkname=b"f"))
    for name, lower in (("one", one), ("two", two)):
        image = store.add(name, [lower, leaning], CONFIG)
        top = store.layer_paths(image)[0]
        assert top.name == f"chain-{image.chain_ids[1][7:]}"
        assert (top / "copy").read_text() == name
        assert store.layer_paths(image)[0] == top
    store.remove("one")
    assert len(unpacked(store)) == 2


def test_killed_unpack_leaves_nothing_that_counts(store, tmp_path):
    image = store.add("x", [tar_file(tmp_path / "l.tar", (Entry(b"big"), b"x" * 1_000_000))], CONFIG)
    code = (
        "import os, sys, signal\n"
        "from minicontainer.image import layers\n"
        "from minicontainer.image.store import Store\n"
        "class Dying(layers.LayerWriter):\n"
        "    def finish(self): os.kill(os.getpid(), signal.SIGKILL)\n"
        "layers.LayerWriter = Dying\n"
        "store = Store(sys.argv[1]); store.layer_paths(store.resolve('x'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    (left,) = unpacked(store)
    assert ".tmp-" in left
    (path,) = store.layer_paths(image)
    assert (path / "big").stat().st_size == 1_000_000
    assert unpacked(store) == {path.name}


def test_collect_removes_what_killed_processes_left(store, layer):
    image = store.add("x", [layer], CONFIG)
    (path,) = store.layer_paths(image)
    store.blobs.put(b"nobody wants me")
    (store.layers / ("f" * 64 + ".tmp-1-ab")).mkdir()
    (store.layers / ("e" * 64)).mkdir()
    (store.layers / "init").mkdir()
    (store.blobs.ingest / "half").write_text("x")
    assert store.collect() == 4
    assert unpacked(store) == {path.name, "init"}, "the containers' common layer is not the store's to remove"
    assert len(blobs(store)) == 3 and list(store.blobs.ingest.iterdir()) == []


def test_nothing_is_collected_while_somebody_adds(store, layer):
    store.add("x", [layer], CONFIG)
    with open(store.layout / "gc.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        orphan = store.blobs.put(b"soon to be referred to")
        assert store.collect() == 0
        assert store.blobs.has(orphan)
    store.add("y", [layer], CONFIG)  # the next one to finish does what was put off
    assert not store.blobs.has(orphan)


# Damage and lies


@pytest.mark.parametrize("which", ["manifest", "config"])
def test_tampered_document_is_noticed(store, layer, which):
    image = store.add("x", [layer], CONFIG)
    path = store.blobs.path(image.manifest_digest if which == "manifest" else image.id)
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(BadImage, match="is damaged: its content is sha256:"):
        store.resolve("x")


def test_damaged_image_is_named_can_be_removed_and_does_not_take_others_with_it(store, layer, tmp_path):
    other = store.add("other", [tar_file(tmp_path / "o.tar", Entry(b"o"))], CONFIG)
    (path,) = store.layer_paths(other)
    image = store.add("hurt", [layer], CONFIG)
    store.blobs.path(image.id).write_bytes(b"{}")
    with pytest.raises(BadImage, match="image hurt:latest: blob .* is damaged") as caught:
        store.images()
    assert "rmi hurt:latest" in caught.value.hint
    told: list[BadImage] = []
    assert store.images(told.append) == [other] and len(told) == 1
    assert store.resolve(other.short_id) == other
    orphan = store.blobs.put(b"garbage")
    assert store.collect() == 0 and store.blobs.has(orphan), "nothing goes while needs are unknown"
    assert store.remove("hurt") == ["Untagged: hurt:latest"]
    assert store.images() == [other] and path.is_dir()
    assert len(blobs(store)) == 3


@pytest.mark.parametrize("compress", [False, True])
def test_tampered_layer_is_noticed_and_nothing_stays(store, tmp_path, compress):
    path = tar_file(tmp_path / "l.tar", (Entry(b"f"), b"good"), compress=compress)
    image = store.add("x", [path], CONFIG)
    evil = tar_file(tmp_path / "e.tar", (Entry(b"f"), b"evil"), compress=compress)
    shutil.copy(evil, store.blobs.path(image.layers[0].digest))
    with pytest.raises(BadImage, match=f"layer {image.diff_ids[0]} is damaged"):
        store.layer_paths(image)
    assert unpacked(store) == set()


def test_missing_blob_is_a_clear_error(store, layer):
    image = store.add("x", [layer], CONFIG)
    store.blobs.path(image.layers[0].digest).unlink()
    with pytest.raises(BadImage, match="is missing from the store"):
        store.layer_paths(image)
    store.blobs.path(image.id).unlink()
    with pytest.raises(BadImage, match="is missing from the store") as caught:
        store.resolve("x")
    assert caught.value.hint


def register(store: Store, manifest: dict | bytes) -> None:
    data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    store._prepare()
    digest = store.blobs.put(data)
    entry = {"mediaType": "m", "digest": digest, "size": len(data), "annotations": {
        "org.opencontainers.image.ref.name": "evil:latest"}}  # fmt: skip
    (store.layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"manifests": []}, "not an image manifest|not an image index"),
        ({"manifests": [], "mediaType": image_config.MANIFEST}, "not an image manifest"),
        ({"schemaVersion": 1}, "not an image manifest"),
        ({"layers": None}, "not an image manifest"),
        ({"layers": [{}] * 128}, "more than the limit of 127"),
        ({"layers": [{"digest": "sha256:../../../../etc/passwd", "size": 1}]}, "digest"),
        ({"layers": [{"digest": "sha256:" + "a" * 64, "size": -1}]}, "lacks a digest or a size"),
        ({"layers": [{"digest": "sha256:" + "a" * 64, "size": True}]}, "lacks a digest or a size"),
        ({"layers": [{"digest": "sha512:" + "a" * 128, "size": 1}]}, "its manifest 1"),
        ({"layers": ["x"]}, "not a descriptor"),
        ({"config": None}, "not a descriptor"),
        ({"config": {"digest": "md5:" + "a" * 64, "size": 1}}, "unsupported digest"),
        ({"config": {"digest": "sha256:" + "A" * 64, "size": 1}}, "digest"),
        ({"config": {"digest": "sha512:" + "a" * 128, "size": 1}}, "unsupported digest"),
    ],
)
def test_lying_manifest_is_refused(store, change, reason):
    data = json.dumps({"rootfs": {"type": "layers", "diff_ids": []}}).encode()
    store._prepare()
    store.blobs.put(data)
    good = {"schemaVersion": 2, "config": {"digest": digest_of(data), "size": len(data)}, "layers": []}
    register(store, good)
    assert store.resolve("evil").id == digest_of(data)
    register(store, {**good, **change})
    with pytest.raises(MinicontainerError, match=reason):
        store.resolve("evil")


@pytest.mark.parametrize(
    "raw",
    [{}, {"rootfs": []}, {"rootfs": {"type": "other", "diff_ids": []}}, {"rootfs": {"type": "layers"}},
     {"rootfs": {"type": "layers", "diff_ids": ["../../x"]}}, {"rootfs": {"type": "layers", "diff_ids": [7]}},
     {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "a" * 64]}}],
)  # fmt: skip
def test_lying_config_is_refused(store, raw):
    store._prepare()
    data = json.dumps(raw).encode()
    digest = store.blobs.put(data)
    register(store, {"schemaVersion": 2, "config": {"digest": digest, "size": len(data)}, "layers": []})
    with pytest.raises(BadImage):
        store.resolve("evil")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"no json", b"\xff\xfe", b'{"a":' + b"[" * 200_000, b'{"a":"' + b"x" * (5 << 20) + b'"}'],
)
def test_document_that_is_none_is_refused(store, data):
    register(store, data)
    with pytest.raises(BadImage):
        store.resolve("evil")


@pytest.mark.parametrize(
    "key", ["Env", "Cmd", "Entrypoint", "ExposedPorts", "Volumes", "User", "Labels", "WorkingDir"]
)
def test_config_of_the_wrong_type_is_refused_when_used(key):
    config = ImageConfig({"config": {key: 7}})
    attribute = {"ExposedPorts": "exposed_ports", "WorkingDir": "working_dir"}.get(key, key.lower())
    with pytest.raises(BadImage, match=key):
        getattr(config, attribute)


def test_index_of_several_platforms_leads_to_this_machines(store, layer):
    image = store.add("x", [layer], CONFIG)
    here = {"os": "linux", "architecture": image_config.architecture()}
    entry = {"mediaType": image_config.MANIFEST, "digest": image.manifest_digest, "size": 1}
    foreign = {**entry, "digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "vax"}}
    register(store, {"schemaVersion": 2, "mediaType": image_config.INDEX, "manifests": [
        foreign, {**entry, "platform": here}]})  # fmt: skip
    assert store.resolve("evil").id == image.id
    assert store.collect() == 0, "what the index leads to is not garbage"
    register(store, {"schemaVersion": 2, "mediaType": image_config.INDEX, "manifests": [foreign]})
    with pytest.raises(BadImage, match="has no image for linux/"):
        store.resolve("evil")


# Many at once


def _worker(root: str, number: int, layers: list[str], seconds: float) -> None:
    """Add, use and remove images as fast as possible; any surprise ends the process with an error."""
    chance = random.Random(number)
    store = Store(root)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name = f"image{chance.randrange(3)}"
        try:
            image = store.add(name, chance.sample(layers, 2), {**CONFIG, "author": str(chance.randrange(2))})
            for path in store.layer_paths(image):
                assert len(os.listdir(path)) == 20, path
            if chance.random() < 0.5:
                store.remove(name)
        except ImageNotFound:
            continue  # another process removed it: fine
        except BadImage as error:
            assert "missing" in str(error), error  # removed between looking and reading
        except FileNotFoundError as error:
            assert "layers" in str(error), error  # removed by another while we counted


def test_many_processes_add_and_remove_at_once(store, tmp_path):
    layers = [
        str(
            tar_file(
                tmp_path / f"{n}.tar", *((Entry(b"%d-%d" % (n, i)), os.urandom(2000)) for i in range(20))
            )
        )
        for n in range(4)
    ]
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(str(store.root), n, layers, 2.0)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    for image in store.images():
        for path in store.layer_paths(image):
            assert len(os.listdir(path)) == 20
        store.remove(image.id, force=True)
    store.collect()
    assert (blobs(store), unpacked(store), list(store.blobs.ingest.iterdir())) == (set(), set(), [])


def _add_many(root: str, number: int, layer: str) -> None:
    for count in range(15):
        Store(root).add(f"image{number}:{count}", [layer], CONFIG)


def test_no_name_is_lost_when_many_processes_add(store, layer):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_many, args=(str(store.root), n, str(layer))) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    (image,) = store.images()
    assert len(image.references) == 60


def _unpack_one(root: str, barrier) -> None:
    store = Store(root)
    image = store.resolve("x")
    barrier.wait()
    (path,) = store.layer_paths(image)
    assert len(os.listdir(path)) == 300


def test_one_layer_wanted_by_several_processes_is_unpacked_whole(store, tmp_path):
    store.add("x", [tar_file(tmp_path / "l.tar", *(Entry(b"%d" % i) for i in range(300)))], CONFIG)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    workers = [context.Process(target=_unpack_one, args=(str(store.root), barrier)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(unpacked(store)) == 1


# Other people's tools, and speed


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_reads_the_store_in_place(store, tmp_path, layer):
    image = store.add("busybox", [layer, tar_file(tmp_path / "t.tar", Entry(b"t"), compress=True)], CONFIG)
    where = f"oci:{store.layout}:busybox:latest"
    done = subprocess.run(["skopeo", "inspect", where], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["Digest"] == image.manifest_digest
    assert said["Layers"] == [layer.digest for layer in image.layers]
    copied = ["skopeo", "copy", "--insecure-policy", where, f"oci:{tmp_path}/copy:again:1"]
    done = subprocess.run(copied, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_image_that_skopeo_copied_in_is_found(store, tmp_path, layer):
    image = store.add("busybox", [layer], CONFIG)
    copy = [
        "skopeo",
        "copy",
        "--insecure-policy",
        f"oci:{store.layout}:busybox:latest",
        f"oci:{store.layout}:new:1",
    ]
    done = subprocess.run(copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert store.resolve("new:1").id == image.id
    assert (store.layer_paths(store.resolve("new:1"))[0] / "etc/name").read_text() == "one"


def test_looking_up_an_image_imports_nothing_heavy(store, layer):
    store.layer_paths(store.add("busybox", [layer], CONFIG))
    code = (
        "import sys; from minicontainer.image.store import Store; s = Store(sys.argv[1])\n"
        "assert len(s.layer_paths(s.resolve('busybox'))) == 1\n"
        "heavy = {'hashlib', 'tarfile', 'gzip', 'zlib', 'threading', 'subprocess', 'tempfile', 'typing'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-I", "-S", "-c", "import sys; sys.path.insert(0, sys.argv[2]); " + code]
    done = subprocess.run(
        [*command, str(store.root), str(Path(__file__).parents[2])], capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr
