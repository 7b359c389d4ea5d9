"""Honest statistics for a noisy machine: many short blocks, ratios inside a block, their median, a bootstrap interval.

A laptop's speed drifts by several per cent within seconds, and the drift is shared by what runs close together. So
everything that is compared runs once in each block, in random order; the ratio is taken inside the block, where the
drift cancels; the median over the blocks ignores the odd disturbed one; and resampling the blocks says how far the
median can be trusted. A thing compared with itself gives the noise floor: no difference below it was seen. Lab 14.
Plain functions on plain values, without clocks.

Efron and Tibshirani, "An Introduction to the Bootstrap" (percentile interval); Felter et al. for what is compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

RESAMPLES = 4000
CONFIDENCE = 0.95

Block = Mapping[str, float]
"""What each arm took in one block, by the arm's name."""


@dataclass(frozen=True)
class Estimate:
    """A value with the interval that it lies in with :data:`CONFIDENCE`, from `count` blocks."""

    value: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high, "blocks": self.count}


def bootstrap(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float] = median,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 1,
) -> Estimate:
    """The `statistic` of `values` and its percentile bootstrap interval. The same values give the same interval.

    >>> bootstrap([1.0, 1.0, 1.0])
    Estimate(value=1.0, low=1.0, high=1.0, count=3)

    :raises ValueError: there are no values.
    """
    if not values:
        raise ValueError("an estimate needs at least one value")
    chance = random.Random(seed)
    found = sorted(statistic(chance.choices(values, k=len(values))) for _ in range(resamples))
    tail = (1 - confidence) / 2
    low = found[int(tail * resamples)]
    high = found[min(resamples - 1, int((1 - tail) * resamples))]
    return Estimate(statistic(values), low, high, len(values))


def ratio(blocks: Iterable[Block], ours: str, theirs: str) -> Estimate:
    """How many times what `theirs` takes does `ours` take: median of the ratios inside the blocks."""
    return bootstrap([block[ours] / block[theirs] for block in blocks])


def difference(blocks: Iterable[Block], ours: str, theirs: str) -> Estimate:
    """How much more `ours` takes than `theirs`: median of the differences inside the blocks."""
    return bootstrap([block[ours] - block[theirs] for block in blocks])


def total_ratio(blocks: Sequence[Block], ours: str, theirs: str) -> Estimate:
    """How many times as long all blocks together take for `ours` as for `theirs`; blocks are resampled as pairs."""
    totals = sum(block[ours] for block in blocks) / sum(block[theirs] for block in blocks)
    chance = random.Random(1)
    found = []
    for _ in range(RESAMPLES):
        chosen = chance.choices(blocks, k=len(blocks))
        found.append(sum(block[ours] for block in chosen) / sum(block[theirs] for block in chosen))
    found.sort()
    tail = int((1 - CONFIDENCE) / 2 * RESAMPLES)
    return Estimate(totals, found[tail], found[RESAMPLES - 1 - tail], len(blocks))


def noise_floor(blocks: Iterable[Block], arm: str, again: str) -> float:
    """The smallest relative difference that could have been seen: what two arms of the same thing differ by.

    The larger of their median's distance from 1 and half their interval, as a fraction (0.02 is 2 %).
    """
    same = ratio(blocks, arm, again)
    return max(abs(same.value - 1), (same.high - same.low) / 2)


def medians(blocks: Sequence[Block]) -> dict[str, float]:
    """The median of each arm over the blocks."""
    return {arm: median(block[arm] for block in blocks) for arm in (blocks[0] if blocks else {})}


HOLDS, TOUCHES, FAILS = "holds", "holds, but the interval reaches above", "FAILS"


def verdict(estimate: Estimate, limit: float) -> str:
    """Whether a promise of at most `limit` is kept: broken only where the whole interval lies above the limit."""
    if estimate.low > limit:
        return FAILS
    return HOLDS if estimate.high <= limit else TOUCHES


@dataclass
class Measured:
    """The blocks of one measurement.

    :ivar quiet: the blocks during which nobody else used the machine.
    :ivar disturbed: the others.
    """

    quiet: list[dict[str, float]] = field(default_factory=list)
    disturbed: list[dict[str, float]] = field(default_factory=list)

    def usable(self, enough: int) -> tuple[list[dict[str, float]], bool]:
        """The blocks to judge by: the quiet ones where there are `enough`, else all, and whether it was all."""
        if len(self.quiet) >= enough:
            return self.quiet, False
        return self.quiet + self.disturbed, bool(self.disturbed)


def interleave(
    arms: Mapping[str, Callable[[], float]],
    count: int,
    *,
    seed: int | None = None,
    watch: Callable[[], Callable[[], bool]] | None = None,
    patience: float = 2.0,
) -> Measured:
    """Run every arm once in each block, in random order, until `count` blocks were quiet.

    :param arms: by name; each runs one unit and returns what it took.
    :param watch: called when a block begins; what it returns is called at the block's end and says whether somebody
        else used the machine meanwhile.
    :param patience: how many times `count` blocks to run at most.
    """
    chance = random.Random(seed)
    names = list(arms)
    found = Measured()
    for _ in range(int(count * patience)):
        if len(found.quiet) == count:
            break
        chance.shuffle(names)
        disturbed = watch() if watch is not None else None
        taken = {name: arms[name]() for name in names}
        block = {name: taken[name] for name in arms}
        (found.disturbed if disturbed is not None and disturbed() else found.quiet).append(block)
    return found
