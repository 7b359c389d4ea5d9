"""A solution that is a step of the runtime makes real containers, in the place of the package's own function."""

from __future__ import annotations

import pytest

from minicontainer import Engine, steps
from minicontainer.course import items
from minicontainer.errors import StepError
from minicontainer.image.base import ensure_default
from minicontainer.image.store import Store
from tests.exercises.conftest import answer

STEPS = [item for item in items.all_items() if item.step]


@pytest.fixture(scope="module")
def image() -> str:
    return str(ensure_default(Store()).references[0])


@pytest.mark.parametrize("item", STEPS, ids=lambda item: item.id)
def test_solution_runs_a_real_container(item: items.Item, image: str) -> None:
    with steps.use(**{item.step: answer("solutions", item.lab, item.name)}):
        ended = Engine().run(image, ["sh", "-c", "echo $$; exit 7"], remove=True)
    assert (ended.status, ended.stdout) == (7, "1\n")


def test_untouched_stub_is_named_by_the_engine(image: str) -> None:
    with steps.use(isolate=answer("exercises", "02", "isolate")), pytest.raises(StepError) as caught:
        Engine().run(image, ["true"], remove=True)
    assert caught.value.step == "isolate" and "raise NotImplementedError()" in caught.value.traceback
