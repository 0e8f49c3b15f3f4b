"""How often significance is wrong: the tables and figures of docs/explanation/significance.md, from a fixed seed.

python docs/simulations/significance.py            # writes figures and the page's tables
python docs/simulations/significance.py --check    # exits 1 when those in the repository are not these
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
PAGE = HERE.parent / "explanation" / "significance.md"
SEED = 20261123
TOLERATED = 0.05
BASELINE_DAYS = 29
Z_LEVELS = (1.96, 2.58, 3.0, 3.5, 4.0, 4.5)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int32]


def wilson_lower(k: NDArray[np.generic], n: NDArray[np.generic] | int, z: float) -> Floats:
    """Lower bound of the score interval of k/n (Wilson 1927)."""
    kf, nf = np.asarray(k, np.float64), np.asarray(n, np.float64)
    return np.asarray(np.maximum(0.0, (kf + z * z / 2 - z * np.sqrt(kf * (nf - kf) / nf + z * z / 4)) / (nf + z * z)))


def two_proportion_z(k1: Counts, n1: int, k2: Counts, n2: int) -> Floats:
    """Pooled z of two proportions; -inf where nothing or everything failed, so that no threshold is reached."""
    pooled = (k1 + k2) / (n1 + n2)
    error = np.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (k1 / n1 - k2 / n2) / error
    return np.where(error > 0, z, -np.inf)


def one_look(rng: np.random.Generator) -> list[list[str]]:
    """An agent that fails 2 % of its runs, judged once after n runs: how often each rule says `worse than 5 %`."""
    rows = []
    for n in (3, 5, 10, 20, 50, 100, 200, 500):
        good = rng.binomial(n, 0.02, 200_000)
        bad = rng.binomial(n, 0.25, 200_000)
        row = [str(n), percent(np.mean(good / n > TOLERATED))]
        row += [percent(np.mean(wilson_lower(good, n, z) > TOLERATED)) for z in (1.96, 3.0, 4.0)]
        row += [percent(np.mean(wilson_lower(bad, n, z) > TOLERATED)) for z in (1.96, 3.0, 4.0)]
        rows.append(row)
    return rows


def at_the_limit(rng: np.random.Generator) -> list[list[str]]:
    """An agent exactly at the tolerated rate, judged once: what z promises and what it keeps."""
    rows = []
    for n in (5, 10, 20, 50, 100, 500, 2000):
        k = rng.binomial(n, TOLERATED, 500_000)
        rows.append([str(n), *(percent(np.mean(wilson_lower(k, n, z) > TOLERATED), 3) for z in Z_LEVELS)])
    return rows


@dataclass(frozen=True)
class Steady:
    """An agent whose failure rate never changes, judged at every single run."""

    rate: float
    runs_a_day: int
    agents: int


def false_alarms(rng: np.random.Generator, case: Steady, days: int) -> tuple[Floats, Floats]:
    """How many of the agents are flagged at least once: per z, against the tolerated rate, and by either rule.

    Runs come evenly, so that a day is `runs_a_day` runs. Flags start once the 30 days before are known.
    """
    per_day, looks = case.runs_a_day, case.runs_a_day * days
    history = per_day * (BASELINE_DAYS + 1)
    tolerated = np.zeros(len(Z_LEVELS))
    either = np.zeros(len(Z_LEVELS))
    done = 0
    while done < case.agents:
        size = min(case.agents - done, max(1, 8_000_000 // (history + looks)))
        failed = rng.random((size, history + looks), np.float32) < case.rate
        total = np.concatenate([np.zeros((size, 1), np.int32), np.cumsum(failed, 1, np.int32)], 1)
        end = total[:, history + 1 :]
        start = total[:, history + 1 - per_day : -per_day]
        first = total[:, 1 : 1 + looks]
        recent, earlier = end - start, start - first
        change = two_proportion_z(recent, per_day, earlier, per_day * BASELINE_DAYS)
        for i, z in enumerate(Z_LEVELS):
            over = wilson_lower(recent, per_day, z) > TOLERATED
            tolerated[i] += np.count_nonzero(over.any(1))
            either[i] += np.count_nonzero((over | (change >= z)).any(1))
        done += size
    return tolerated / case.agents, either / case.agents


def repeated(rng: np.random.Generator) -> list[list[str]]:
    rows = []
    for rate in (TOLERATED, 0.02):
        for per_day, agents in ((20, 20_000), (100, 6_000), (500, 1_200)):
            for days in (1, 7):
                tolerated, either = false_alarms(rng, Steady(rate, per_day, agents), days)
                for name, values in (("tolerated rate", tolerated), ("either", either)):
                    rows.append([percent(rate, 0), str(per_day), str(days), name, *map(percent, values)])
    return rows


def delays(rng: np.random.Generator) -> list[list[str]]:
    """An agent at 2 % turns bad: how many of its runs pass until it is flagged by either rule."""
    rows = []
    per_day, agents = 100, 4_000
    for rate in (0.10, 0.20, 0.40):
        before = rng.random((agents, per_day * 31)) < 0.02
        after = rng.random((agents, per_day * 3)) < rate
        total = np.concatenate([np.zeros((agents, 1), np.int32), np.cumsum(np.hstack([before, after]), 1, np.int32)], 1)
        known = per_day * 31
        end = total[:, known + 1 :]
        looks = end.shape[1]
        start = total[:, known + 1 - per_day : known + 1 - per_day + looks]
        first = total[:, known + 1 - 30 * per_day : known + 1 - 30 * per_day + looks]
        recent, earlier = end - start, start - first
        change = two_proportion_z(recent, per_day, earlier, per_day * BASELINE_DAYS)
        row = [percent(rate, 0)]
        for z in Z_LEVELS:
            flag = (wilson_lower(recent, per_day, z) > TOLERATED) | (change >= z)
            when = np.where(flag.any(1), flag.argmax(1) + 1, looks + 1)
            median = int(np.median(when))
            row.append(f"{median}" if median <= looks else f"over {looks}")
        rows.append(row)
    return rows


def rejections(rng: np.random.Generator) -> list[list[str]]:
    """An agent that humans reject at a steady rate, 30 answers a week, judged at every answer for four weeks."""
    rows = []
    week, looks, agents, tolerated = 30, 120, 20_000, 0.15
    for rate in (0.15, 0.10, 0.02):
        total = np.concatenate(
            [np.zeros((agents, 1), np.int32), np.cumsum(rng.random((agents, 130 + looks)) < rate, 1, np.int32)], 1
        )
        at = 130 + 1 + np.arange(looks)
        recent, earlier = total[:, at] - total[:, at - week], total[:, at - week] - total[:, at - 130]
        change = two_proportion_z(recent, week, earlier, 130 - week)
        row = [percent(rate, 0)]
        for z in Z_LEVELS:
            flag = (wilson_lower(recent, week, z) > tolerated) | (change >= z)
            row.append(percent(np.mean(flag.any(1))))
        rows.append(row)
    return rows


def curve_one_look(rng: np.random.Generator) -> list[Line]:
    """The share of good agents (2 %) called worse than 5 %, by how many runs they are judged on."""
    sizes = np.arange(1, 151)
    rules: list[tuple[str, Callable[[Counts, int], Bools]]] = [
        ("plain rate", lambda k, n: np.asarray(k / n > TOLERATED)),
        ("Wilson, z = 1.96", lambda k, n: wilson_lower(k, n, 1.96) > TOLERATED),
        ("Wilson, z = 4", lambda k, n: wilson_lower(k, n, 4.0) > TOLERATED),
    ]
    shares: list[list[float]] = [[] for _ in rules]
    for n in sizes:
        k = rng.binomial(n, 0.02, 40_000).astype(np.int32)
        for i, (_, rule) in enumerate(rules):
            shares[i].append(float(np.mean(rule(k, int(n)))))
    return [
        Line(name, list(zip(map(float, sizes), s, strict=True))) for (name, _), s in zip(rules, shares, strict=True)
    ]


def curve_repeated(rng: np.random.Generator) -> list[Line]:
    """The share of agents at the tolerated rate that were flagged so far, by days of looking at every run."""
    per_day, days, agents = 100, 14, 4_000
    failed = rng.random((agents, per_day * (days + 1)), np.float32) < TOLERATED
    total = np.concatenate([np.zeros((agents, 1), np.int32), np.cumsum(failed, 1, np.int32)], 1)
    recent = total[:, per_day + 1 :] - total[:, 1:-per_day]
    lines = []
    for z in (1.96, 2.58, 3.0, 3.5, 4.0):
        flag = wilson_lower(recent, per_day, z) > TOLERATED
        first = np.where(flag.any(1), flag.argmax(1) + 1, np.inf)
        points = [(float(d), float(np.mean(first <= d * per_day))) for d in np.arange(0, days + 0.25, 0.25)]
        lines.append(Line(f"z = {z:g}", points))
    return lines


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


COLOURS = ("#b2182b", "#ef8a62", "#7f7f7f", "#67a9cf", "#2166ac")


def svg(title: str, x_title: str, lines: Sequence[Line], x_ticks: Sequence[int], y_ticks: Sequence[float]) -> str:
    """A line chart, shares on the y axis, each line named at its end."""
    width, height, left, right, top, bottom = 720, 380, 62, 170, 44, 50
    x_low, x_high, y_high = x_ticks[0], x_ticks[-1], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x_low) / (x_high - x_low) * (width - left - right),
            height - bottom - min(y, y_high) / y_high * (height - top - bottom),
        )

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="24" font-size="15" font-weight="bold">{title}</text>',
    ]
    for y in y_ticks:
        _, at_y = at(x_low, y)
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{at_y:.1f}" y2="{at_y:.1f}" stroke="#e3e3e3"/>')
        out.append(f'<text x="{left - 8}" y="{at_y + 4:.1f}" text-anchor="end">{percent(y, 0)}</text>')
    for x in x_ticks:
        at_x, _ = at(x, 0)
        out.append(f'<text x="{at_x:.1f}" y="{height - bottom + 20}" text-anchor="middle">{x}</text>')
    middle = left + (width - left - right) / 2
    out.append(f'<text x="{middle:.0f}" y="{height - 10}" text-anchor="middle">{x_title}</text>')
    coloured = list(zip(lines, COLOURS, strict=False))
    for line, colour in coloured:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (at(*point) for point in line.points))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    label = float(height)
    # names from the lowest line's up, each clear of the one below: they stand in the order of the lines
    for line, colour in sorted(coloured, key=lambda pair: pair[0].points[-1][1]):
        label = min(at(*line.points[-1])[1], label - 16)
        out.append(f'<text x="{width - right + 8}" y="{label + 4:.1f}" fill="{colour}">{line.name}</text>')
    return "\n".join([*out, "</svg>", ""])


def percent(share: float | np.floating, digits: int = 1) -> str:
    return f"{100 * float(share):.{digits}f} %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, all columns to the right."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---:|" * len(head), *lines[1:]])


def tables() -> dict[str, str]:
    """Every table of the page, by the name in its marker; each from its own stream of the seed."""
    streams = iter(np.random.default_rng(SEED).spawn(5))
    levels = [f"z = {z:g}" for z in Z_LEVELS]
    return {
        "one look": table(
            ["runs", "good: rate > 5 %", "good: z = 1.96", "good: z = 3", "good: z = 4",
             "bad: z = 1.96", "bad: z = 3", "bad: z = 4"],
            one_look(next(streams)),
        ),
        "at the limit": table(["runs", *levels], at_the_limit(next(streams))),
        "repeated": table(["true rate", "runs a day", "days", "rule", *levels], repeated(next(streams))),
        "delays": table(["turns to", *levels], delays(next(streams))),
        "rejections": table(["true rate", *levels], rejections(next(streams))),
    }  # fmt: skip


def figures() -> dict[str, str]:
    streams = iter(np.random.default_rng(SEED + 1).spawn(2))
    return {
        "one_look.svg": svg(
            "A good agent (2 %) called worse than 5 %", "runs it is judged on",
            curve_one_look(next(streams)), (0, 25, 50, 75, 100, 125, 150), (0, 0.1, 0.2, 0.3, 0.4),
        ),
        "repeated_looks.svg": svg(
            "Flagged at least once, though always at the tolerated 5 %", "days, looked at after each of 100 runs a day",
            curve_repeated(next(streams)), (0, 2, 4, 6, 8, 10, 12, 14), (0, 0.2, 0.4, 0.6, 0.8),
        ),
    }  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    made = tables()
    page = PAGE.read_text()
    stale = [name for name, text in made.items() if f"<!-- {name} -->\n\n{text}\n" not in page]
    drawn = figures()
    stale += [name for name, text in drawn.items() if not (HERE / name).exists() or (HERE / name).read_text() != text]
    if "--check" in arguments:
        print(f"stale: {', '.join(stale)}" if stale else "the page and its figures are these")
        return 1 if stale else 0
    for name, text in drawn.items():
        (HERE / name).write_text(text)
    for name, text in made.items():
        marker = f"<!-- {name} -->\n\n"
        start = page.index(marker) + len(marker)
        end = page.index("\n\n", start)
        page = page[:start] + text + page[end:]
    PAGE.write_text(page)
    print(f"wrote {len(made)} tables and {len(drawn)} figures; {len(stale)} had changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
