"""Draws the samples of `--scenario sizes` as an SVG: CPU per delivery and memory per client, by the number of clients.

`python -m tests.bench.plot RESULTS.json PLOT.svg` draws from a file that `--json` has written. It must not measure.
"""

import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 800, 380
TOP, BOTTOM = 56, 318  # of the panels; titles are above, and numbers of clients below
LEFT, PANEL, STEP = 44, 236, 396  # left edge of the first panel, width of a panel, distance between left edges
LABEL_STEP = 14.5  # the smallest distance between two names
TICKS = [mantissa * 10.0**exponent for exponent in range(-1, 6) for mantissa in (1, 2, 5)]
SMALLEST = 0.2  # smaller values are noise, and have no place on a logarithmic scale

HELLO, FLOOR = "hello", "floor"

# In both colour schemes hello differs by colour and width, the floor by dashes, the peers by their names.
STYLE = (Path(__file__).parent / "plot.css").read_text()


def draw(results: Mapping[str, Any]) -> str:
    """Return the SVG of these results."""
    found: dict[str, dict[tuple[str, int], list[float]]] = {"cpu": {}, "memory": {}}
    for sample in results["samples"]:
        for key, values in found.items():
            values.setdefault((sample["server"], sample["clients"]), []).append(sample["metrics"][key])
    medians = {key: {at: statistics.median(some) for at, some in values.items()} for key, values in found.items()}
    # The floor stores one number per connection, which cannot be compared.
    memory = {at: value for at, value in medians["memory"].items() if at[0] != FLOOR}
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
            ' role="img" aria-labelledby="what">',
            '<title id="what">CPU per delivery and memory per client, by the number of clients</title>',
            f"<style>\n{STYLE}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            *_panel(LEFT, "CPU per delivery, µs", medians["cpu"]),
            *_panel(LEFT + STEP, "Memory per client, KiB", memory),
            "</svg>\n",
        ]
    )


def _panel(left: float, title: str, values: Mapping[tuple[str, int], float]) -> Iterator[str]:
    """Return one panel, whose axes are logarithmic; `values` are by server and number of clients."""
    shown = {at: value for at, value in values.items() if value >= SMALLEST}
    sizes = sorted({size for _, size in values})
    low = max(tick for tick in TICKS if tick <= min(shown.values()))
    high = min(tick for tick in TICKS if tick > max(shown.values()))

    def x(size: float) -> float:
        return left + PANEL * math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0])

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * math.log(value / low) / math.log(high / low)

    yield f'<text class="title" x="{left}" y="{TOP - 24}">{title}</text>'
    for tick in TICKS:
        if low <= tick <= high:
            yield f'<path class="grid" d="M{left} {y(tick):.1f}h{PANEL}"/>'
            yield f'<text x="{left - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for size in sizes:
        yield f'<path class="grid" d="M{x(size):.1f} {TOP}V{BOTTOM}"/>'
        if math.log10(size).is_integer():  # the others are too near
            yield f'<text x="{x(size):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{size:,}</text>'
    yield f'<text x="{left + PANEL / 2}" y="{BOTTOM + 40}" text-anchor="middle">clients</text>'

    lines: dict[str, list[tuple[float, float]]] = {}
    for (server, size), value in shown.items():
        lines.setdefault(server, []).append((x(size), y(value)))
    names = _apart({server: line[-1][1] for server, line in lines.items()})
    for server in sorted(lines, key=[FLOOR, HELLO].count):  # hello and the floor are drawn over the peers
        end_x, end_y = lines[server][-1]
        yield f'<g class="{server if server in (HELLO, FLOOR) else "peer"}">'
        yield f'<path class="line" d="M{" L".join(f"{px:.1f} {py:.1f}" for px, py in lines[server])}"/>'
        yield from (f'<circle class="dot" cx="{px:.1f}" cy="{py:.1f}" r="2.4"/>' for px, py in lines[server])
        yield f'<path class="leader" d="M{end_x + 4:.1f} {end_y:.1f}L{left + PANEL + 11} {names[server]:.1f}"/>'
        yield f'<text x="{left + PANEL + 14}" y="{names[server] + 4:.1f}">{escape(server)}</text>'
        yield "</g>"


def _apart(wanted: Mapping[str, float]) -> dict[str, float]:
    """Return heights near the wanted ones, no two closer than LABEL_STEP."""
    names: dict[str, float] = {}
    height = 0.0
    for server in sorted(wanted, key=lambda server: wanted[server]):
        names[server] = height = max(wanted[server], height + LABEL_STEP)
    return names


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tests.bench.plot RESULTS.json PLOT.svg")
    Path(sys.argv[2]).write_text(draw(json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
