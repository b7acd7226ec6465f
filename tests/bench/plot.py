"""Draws the samples of `--scenario sizes` as an SVG: CPU per delivery and memory per client, by the number of clients.

`python -m tests.bench.plot RESULTS.json PLOT.svg` draws from a file that `--json` has written, with matplotlib, which
no test needs: `pip install matplotlib`.
"""

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import pyplot, ticker

PANELS = {"cpu": "CPU per delivery, µs", "memory": "Memory per client, KiB"}
STYLES: dict[str, dict[str, Any]] = {
    "hello": {"color": "#0757c8", "linewidth": 3},
    "floor": {"color": "black", "linestyle": "--"},
}


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Draw medians on logarithmic scales, a line for each server."""
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for sample in results["samples"]:
        for metric in PANELS:
            by_size = found.setdefault((metric, sample["server"]), {})
            by_size.setdefault(sample["clients"], []).append(sample["metrics"][metric])
    # The floor stores one number per connection, which cannot be compared.
    del found["memory", "floor"]
    figure, panels = pyplot.subplots(ncols=2, figsize=(9, 4), layout="constrained")
    for panel, (metric, title) in zip(panels, PANELS.items(), strict=True):
        for (measured, server), by_size in found.items():
            if measured == metric:
                medians = [statistics.median(values) for values in by_size.values()]
                panel.loglog(list(by_size), medians, marker=".", label=server, **STYLES.get(server, {}))
        panel.set(title=title, xlabel="clients")
        panel.grid(alpha=0.3)
        for axis, digits in ((panel.xaxis, (1,)), (panel.yaxis, (1, 2, 5))):
            axis.set_major_locator(ticker.LogLocator(subs=digits))
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_formatter("")
    panels[0].legend(frameon=False)
    pyplot.rcParams["svg.fonttype"] = "none"  # text, and not its outlines
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
