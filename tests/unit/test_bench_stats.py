"""The statistics on data whose answer is known."""

import random

import pytest

from minicontainer.bench import stats


def noisy(value: float, noise: random.Random, spread: float = 0.05) -> float:
    return value * noise.lognormvariate(0, spread)


def test_interval_of_identical_values_is_a_point():
    assert stats.bootstrap([2.0] * 10) == stats.Estimate(2.0, 2.0, 2.0, 10)


def test_an_estimate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        stats.bootstrap([])


def test_same_values_give_the_same_interval():
    values = [1.0, 1.3, 0.9, 1.1, 1.2]
    assert stats.bootstrap(values) == stats.bootstrap(values)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    noise = random.Random(7)
    hits = 0
    for _ in range(100):
        found = stats.bootstrap([noise.gauss(1.0, 0.1) for _ in range(40)], resamples=400)
        hits += found.low <= 1.0 <= found.high
    assert 85 <= hits <= 100


def test_interval_narrows_with_more_blocks():
    noise = random.Random(3)
    few = stats.bootstrap([noise.gauss(1, 0.1) for _ in range(10)])
    many = stats.bootstrap([noise.gauss(1, 0.1) for _ in range(200)])
    assert many.high - many.low < (few.high - few.low) / 2


def test_ratio_inside_blocks_is_immune_to_drift():
    """The machine becomes five times slower on the way; what is compared still differs by exactly one half."""
    noise = random.Random(1)
    blocks = []
    for number in range(60):
        drift = 1 + number / 15
        blocks.append({"ours": noisy(0.5 * drift, noise, 0.01), "theirs": noisy(drift, noise, 0.01)})
    found = stats.ratio(blocks, "ours", "theirs")
    assert found.low <= 0.5 <= found.high
    assert found.high - found.low < 0.02


def test_ratio_ignores_a_few_disturbed_blocks():
    blocks = [{"ours": 1.0, "theirs": 2.0}] * 20 + [{"ours": 50.0, "theirs": 2.0}] * 3
    assert stats.ratio(blocks, "ours", "theirs").value == 0.5


def test_difference_is_taken_inside_blocks():
    blocks = [{"many": 10.0 + n, "one": 9.5 + n} for n in range(10)]
    assert stats.difference(blocks, "many", "one") == stats.Estimate(0.5, 0.5, 0.5, 10)


def test_total_ratio_weighs_blocks_by_their_length():
    blocks = [{"ours": 1.0, "theirs": 1.0}, {"ours": 1.0, "theirs": 9.0}]
    found = stats.total_ratio(blocks, "ours", "theirs")
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(1 / 9)
    assert found.high == 1.0


def test_noise_floor_of_a_thing_against_itself():
    noise = random.Random(2)
    same = [{"a": noisy(1, noise, 0.02), "a again": noisy(1, noise, 0.02)} for _ in range(100)]
    assert 0 < stats.noise_floor(same, "a", "a again") < 0.02
    biased = [{"a": 1.1, "a again": 1.0}] * 10
    assert stats.noise_floor(biased, "a", "a again") == pytest.approx(0.1)


def test_medians_by_arm():
    blocks = [{"a": 1.0, "b": 5.0}, {"a": 3.0, "b": 6.0}, {"a": 2.0, "b": 9.0}]
    assert stats.medians(blocks) == {"a": 2.0, "b": 6.0}
    assert stats.medians([]) == {}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.4, 0.55, stats.HOLDS),
        (0.5, 0.7, stats.TOUCHES),
        (0.6, 0.7, stats.TOUCHES),
        (0.61, 0.7, stats.FAILS),
    ],
)
def test_a_promise_is_broken_only_by_a_whole_interval_above_it(low, high, expected):
    assert stats.verdict(stats.Estimate((low + high) / 2, low, high, 9), 0.6) == expected


class TestInterleave:
    def test_every_arm_runs_once_in_each_block_in_changing_order(self):
        calls: list[str] = []

        def unit(name: str):
            return lambda: calls.append(name) or float(len(name))

        found = stats.interleave({name: unit(name) for name in ("a", "bb", "ccc")}, 40, seed=1)
        assert found.quiet == [{"a": 1.0, "bb": 2.0, "ccc": 3.0}] * 40
        orders = [tuple(calls[at : at + 3]) for at in range(0, len(calls), 3)]
        assert all(sorted(order) == ["a", "bb", "ccc"] for order in orders)
        assert len(set(orders)) == 6

    def test_disturbed_blocks_are_repeated_and_kept_apart(self):
        answers = iter([False, True, False, True, False])
        found = stats.interleave({"a": lambda: 1.0}, 3, watch=lambda: lambda: next(answers))
        assert (len(found.quiet), len(found.disturbed)) == (3, 2)
        assert found.usable(3) == ([{"a": 1.0}] * 3, False)

    def test_on_a_busy_machine_it_gives_up_and_says_so(self):
        found = stats.interleave({"a": lambda: 1.0}, 4, watch=lambda: lambda: True, patience=2)
        assert (len(found.quiet), len(found.disturbed)) == (0, 8)
        assert found.usable(2) == ([{"a": 1.0}] * 8, True)
