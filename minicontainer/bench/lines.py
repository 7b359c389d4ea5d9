"""A promise about speed, what was measured for it, and the table of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minicontainer.bench import stats


@dataclass(frozen=True)
class Line:
    """A promise.

    :ivar what: ours, and after " : " what it is compared with.
    :ivar limit: at most so much; None where nothing is promised.
    :ivar unit: "x" for a ratio, "ms" for a difference.
    :ivar extra: shown for information; its limit does not bind.
    """

    what: str
    limit: float | None
    unit: str = "x"
    extra: bool = False


@dataclass
class Row:
    """What was measured for a line, or why nothing was.

    :ivar arms: the names of ours and the peer in the blocks, where the medians are worth telling.
    :ivar noise: the noise floor, as a fraction.
    :ivar dropped: how many blocks others disturbed.
    :ivar busy: the machine was so busy that those were counted nevertheless.
    :ivar scale: factor and unit for the medians.
    :ivar parts: what each value of each block is the sum of, where it is one.
    """

    line: Line
    estimate: stats.Estimate | None = None
    blocks: list[dict[str, float]] = field(default_factory=list)
    note: str = ""
    arms: tuple[str, str] | None = None
    noise: float | None = None
    dropped: int = 0
    busy: bool = False
    scale: tuple[float, str] = (1e3, "ms")
    parts: list[dict[str, dict[str, float]]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """In words; "" where there is no promise or no measurement."""
        if self.estimate is None or self.line.limit is None:
            return ""
        return stats.verdict(self.estimate, self.line.limit)

    @property
    def fails(self) -> bool:
        """Whether a binding promise was broken."""
        return not self.line.extra and self.verdict == stats.FAILS

    def detail(self) -> str:
        """The second line: medians, blocks, noise."""
        if self.estimate is None:
            return ""
        words = []
        if self.arms is not None:
            middle = stats.medians(self.blocks)
            factor, unit = self.scale
            ours, peer = (f"{middle[arm] * factor:.1f} {unit}" for arm in self.arms)
            words.append(f"{ours} : {peer}")
        words.append(f"{self.estimate.count} blocks")
        if self.dropped:
            others = (
                "of them others disturbed, counted all the same" if self.busy else "disturbed ones dropped"
            )
            words.append(f"{self.dropped} {others}")
        if self.noise is not None:
            words.append(f"noise floor {self.noise:.1%}")
        return ", ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with every block."""
        return {
            "what": self.line.what,
            "limit": self.line.limit,
            "unit": self.line.unit,
            "binding": not self.line.extra,
            "estimate": self.estimate.as_dict() if self.estimate else None,
            "verdict": self.verdict or self.note,
            "noise_floor": self.noise,
            "disturbed": self.dropped,
            "disturbed_counted": self.busy,
            "blocks": self.blocks,
            "parts": self.parts,
        }


def table(rows: list[Row]) -> str:
    """All rows as text: value, interval, limit, verdict; below each what it was made of."""
    width = max(len(row.line.what) + 2 * row.line.extra for row in rows)
    lines = [f"{'what (ours : peer)':{width}}  {'value':>8}  {'95 % interval':16}  {'at most':>8}  verdict"]
    for row in rows:
        line = row.line
        # The limits of extras are those of the lines they stand in for: shown in brackets, not binding.
        limit = "" if line.limit is None else f"{line.limit:g} {line.unit}"
        shown = f"({limit})" if line.extra and limit else limit
        what = f"  {line.what}" if line.extra else line.what
        if row.estimate is None:
            lines.append(f"{what:{width}}  {'':8}  {'':16}  {shown:>8}  {row.note}")
            continue
        value = f"{row.estimate.value:.2f} {line.unit}"
        interval = f"[{row.estimate.low:.2f}, {row.estimate.high:.2f}]"
        lines.append(f"{what:{width}}  {value:>8}  {interval:16}  {shown:>8}  {row.verdict}".rstrip())
        lines.append(f"    {row.detail()}")
    return "\n".join(lines)
