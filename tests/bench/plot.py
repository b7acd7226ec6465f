"""Draws the samples of `--scenario sizes` as an SVG: CPU per delivery and memory per client, by the number of clients.

`python -m tests.bench.plot RESULTS.json PLOT.svg` draws from a file that `--json` has written. It must not measure.
"""

import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 800, 380
TOP, BOTTOM = 56, 62  # space above the panels for titles, and below for ticks and the name of the axis
LEFT, PANEL, STEP = 44, 236, 396  # left edge of the first panel, width of a panel, distance between left edges
LABEL_STEP = 14.5  # the smallest distance between two names
MANTISSAS = (1, 2, 5)  # of the ticks
SMALLEST = 0.2  # smaller values are noise, and have no place on a logarithmic scale

HELLO, FLOOR = "hello", "floor"

# In both colour schemes hello differs by colour and width, the floor by dashes, the peers by their names.
STYLE = """
  svg { font: 12px system-ui, sans-serif; --ink: #1f2328; --dim: #59636e; --grid: #d8dee4; --peer: #8c959f;
        --hello: #0757c8; --paper: #ffffff; }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e6edf3; --dim: #9198a1; --grid: #30363d; --peer: #6e7681; --hello: #58a6ff; --paper: #0d1117; }
  }
  .paper { fill: var(--paper); }
  text { fill: var(--dim); }
  .title { fill: var(--ink); font-weight: 600; font-size: 14px; }
  .grid { stroke: var(--grid); }
  .leader { stroke: var(--grid); fill: none; }
  .line { fill: none; stroke: var(--peer); stroke-width: 1.4; stroke-linejoin: round; }
  .dot { fill: var(--peer); }
  .floor .line { stroke: var(--ink); stroke-dasharray: 5 3; }
  .floor .dot { fill: var(--ink); }
  .hello .line { stroke: var(--hello); stroke-width: 3; }
  .hello .dot { fill: var(--hello); }
  .hello text { fill: var(--hello); font-weight: 600; }
  .floor text { fill: var(--ink); }
"""


@dataclass(frozen=True)
class Point:
    """One server at one number of clients: medians over the rounds."""

    server: str
    clients: int
    cpu: float  # microseconds per delivery
    memory: float  # KiB per client


def points(results: Mapping[str, Any]) -> list[Point]:
    """Return the points of the results, in the order in which they were measured."""
    found: dict[tuple[str, int], list[Mapping[str, float]]] = {}
    for sample in results["samples"]:
        found.setdefault((sample["server"], sample["clients"]), []).append(sample["metrics"])
    return [
        Point(server, clients, *(statistics.median(row[key] for row in rows) for key in ("cpu", "memory")))
        for (server, clients), rows in found.items()
    ]


def draw(found: Sequence[Point]) -> str:
    """Return the SVG.

    Raises ValueError if there are no points.
    """
    if not found:
        raise ValueError("there are no points: measure them by `python -m tests.bench --scenario sizes --json FILE`")
    sizes = sorted({point.clients for point in found})
    cpu = {(point.server, point.clients): point.cpu for point in found}
    # The floor stores one number per connection, which cannot be compared.
    memory = {(point.server, point.clients): point.memory for point in found if point.server != FLOOR}
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
            ' role="img" aria-labelledby="what">',
            '<title id="what">CPU per delivery and memory per client, by the number of clients</title>',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            *_panel(LEFT, "CPU per delivery, µs", sizes, cpu),
            *_panel(LEFT + STEP, "Memory per client, KiB", sizes, memory),
            "</svg>\n",
        ]
    )


def _panel(left: float, title: str, sizes: list[int], values: Mapping[tuple[str, int], float]) -> Iterator[str]:
    shown = {at: value for at, value in values.items() if value >= SMALLEST}
    low, high = _bounds(list(shown.values()))
    bottom = HEIGHT - BOTTOM

    def x(clients: float) -> float:
        span = math.log(sizes[-1] / sizes[0]) or 1.0
        return left + PANEL * math.log(clients / sizes[0]) / span

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * math.log(value / low) / math.log(high / low)

    yield f'<text class="title" x="{left}" y="{TOP - 24}">{title}</text>'
    for value in _ticks(low, high):
        yield f'<path class="grid" d="M{left} {y(value):.1f}h{PANEL}"/>'
        yield f'<text x="{left - 7}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
    for size in sizes:
        yield f'<path class="grid" d="M{x(size):.1f} {TOP}V{bottom}"/>'
    for size in _readable(sizes, x):
        yield f'<text x="{x(size):.1f}" y="{bottom + 18}" text-anchor="middle">{_short(size)}</text>'
    yield f'<text x="{left + PANEL / 2}" y="{bottom + 40}" text-anchor="middle">clients</text>'

    lines = {
        server: [(x(size), y(shown[server, size])) for size in sizes if (server, size) in shown]
        for server in dict.fromkeys(server for server, _ in shown)
    }
    names = _apart({server: line[-1][1] for server, line in lines.items()}, TOP, bottom)
    for server in sorted(lines, key=[FLOOR, HELLO].count):  # hello and the floor are drawn over the peers
        line = lines[server]
        end_x, end_y = line[-1]
        yield f'<g class="{server if server in (HELLO, FLOOR) else "peer"}">'
        yield f'<path class="line" d="M{" L".join(f"{px:.1f} {py:.1f}" for px, py in line)}"/>'
        yield from (f'<circle class="dot" cx="{px:.1f}" cy="{py:.1f}" r="2.4"/>' for px, py in line)
        yield f'<path class="leader" d="M{end_x + 4:.1f} {end_y:.1f}L{left + PANEL + 11} {names[server]:.1f}"/>'
        yield f'<text x="{left + PANEL + 14}" y="{names[server] + 4:.1f}">{escape(server)}</text>'
        yield "</g>"


def _bounds(values: list[float]) -> tuple[float, float]:
    """Return the next tick below all values and the next one above, with 2 % of room."""
    low, high = (min(values), max(values)) if values else (1.0, 10.0)
    ticks = _ticks(low / 10, high * 10)
    return max(tick for tick in ticks if tick <= low * 0.98), min(tick for tick in ticks if tick >= high * 1.02)


def _ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [mantissa * 10.0**exponent for exponent in exponents for mantissa in MANTISSAS]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def _readable(sizes: list[int], x: Any) -> list[int]:
    """Return the sizes whose labels do not overlap, the largest first."""
    kept: list[int] = []
    for size in reversed(sizes):
        if not kept or x(kept[-1]) - x(size) > 26:
            kept.append(size)
    return kept


def _short(size: int) -> str:
    return f"{size / 1000:.3g}k" if size >= 1000 else str(size)


def _apart(wanted: Mapping[str, float], top: float, bottom: float) -> dict[str, float]:
    """Return heights near the wanted ones, no two closer than LABEL_STEP, between top and bottom if they fit."""
    order = sorted(wanted, key=lambda server: wanted[server])
    heights: list[float] = []
    for server in order:
        heights.append(max(wanted[server], heights[-1] + LABEL_STEP if heights else top))
    limit = max(bottom, top + LABEL_STEP * (len(order) - 1))
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], limit)
        limit = heights[i] - LABEL_STEP
    return dict(zip(order, heights, strict=True))


def main() -> int:
    if len(sys.argv) != 3:
        sys.stderr.write("usage: python -m tests.bench.plot RESULTS.json PLOT.svg\n")
        return 2
    Path(sys.argv[2]).write_text(draw(points(json.loads(Path(sys.argv[1]).read_text()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
