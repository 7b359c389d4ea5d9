"""Removing images in Docker's words: what is untagged, what is deleted, what is refused because it is in use.

Source: moby's image_delete.go; docker image rm.
"""

from __future__ import annotations

from collections.abc import Sequence

from minicontainer.errors import MinicontainerError
from minicontainer.image.config import Image
from minicontainer.image.index import repository
from minicontainer.image.reference import Reference


class Use:
    """A container that needs an image, for :meth:`Store.remove`."""

    __slots__ = ("container", "image", "running")

    def __init__(self, image: str, container: str = "", *, running: bool = False) -> None:
        self.image = image  # the image's id
        self.container = container  # the container's id
        self.running = running


def names_to_remove(image: Image, name: str, uses: Sequence[Use], force: bool) -> tuple[list[str], bool]:
    """The names that go when `name`, which led to `image`, is removed; and whether it was the image's id.

    :raises MinicontainerError: "conflict: …" (exit code 1), in Docker's words.
    """
    repositories = {repository(ref) for ref in image.references}
    if _is_id(name, image):
        _check_unused(image, uses, force)
        if len(repositories) > 1 and not force:
            raise _conflict(
                f"unable to delete {image.short_id} (must be forced) - image is referenced in multiple repositories"
            )
        return list(image.references), True
    if len(image.references) <= 1:
        if uses and not force:
            raise _conflict(
                f'unable to remove repository reference "{name}" (must force) - container '
                f"{uses[0].container[:12]} is using its referenced image {image.short_id}"
            )
        _check_unused(image, uses, force)
    return [_reference_name(name, image)], False


def _is_id(name: str, image: Image) -> bool:
    """Whether `name` found the image by its id and not by one of its names."""
    digits = name.removeprefix("sha256:")
    return image.id[7:].startswith(digits) and f"{name}:latest" not in image.references


def _reference_name(name: str, image: Image) -> str:
    for guess in (name, f"{name}:latest"):
        if guess in image.references:
            return guess
    reference = Reference.parse(name)
    if reference.digest is None:
        return reference.familiar()
    return next(ref for ref in image.references if repository(ref) == reference.familiar_name)


def _check_unused(image: Image, uses: Sequence[Use], force: bool) -> None:
    running = next((use for use in uses if use.running), None)
    if running is not None:
        raise _conflict(
            f"unable to delete {image.short_id} (cannot be forced) - "
            f"image is being used by running container {running.container[:12]}"
        )
    if uses and not force:
        raise _conflict(
            f"unable to delete {image.short_id} (must be forced) - "
            f"image is being used by stopped container {uses[0].container[:12]}"
        )


def _conflict(message: str) -> MinicontainerError:
    return MinicontainerError(
        f"conflict: {message}",
        hint="remove the container first (`minicontainer rm`), or use --force where it says so",
        exit_code=1,
    )
