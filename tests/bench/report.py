"""Tables of the samples: median, minimum and maximum, and the ratio to the floor in the same round."""

import statistics
from collections.abc import Iterator

from tests.bench.load import Losses
from tests.bench.rounds import GIVE_UP_SECONDS, METRICS, Metric, Sample, Samples, Size
from tests.bench.servers import FLOOR

BOUND = "+"  # mark of a metric that the load tool limited: its core was full, and the server's was not


def overview(samples: Samples, size: Size) -> Iterator[str]:
    """Return all metrics: each with its spread, then the medians side by side, then the losses."""
    for metric in METRICS:
        yield from spread(samples, size, metric)
    yield from side_by_side(samples, size)
    yield from lost(samples)


def pairs(samples: Samples, size: Size) -> Iterator[str]:
    """Return CPU per delivery with its spread, then the losses."""
    (metric,) = (metric for metric in METRICS if metric.key == "cpu_100")
    yield from spread(samples, size, metric)
    yield from lost(samples)


def sizes(samples: Samples, _size: Size) -> Iterator[str]:
    """Return CPU per delivery and memory per client, by the number of clients."""
    counts = sorted({row.clients for row in samples.rows})
    for key, title in (("cpu", "CPU us per delivery"), ("memory", "memory per client, KiB")):
        yield line(title, *(f"{count:,}" for count in counts))
        for server, rows in by_server(samples).items():
            found = [[row for row in rows if row.clients == count] for count in counts]
            yield line(server, *(number(median(some, key)) if some else "" for some in found))
    yield from lost(samples)


def spread(samples: Samples, size: Size, metric: Metric) -> Iterator[str]:
    """Return one metric of each server, over the rounds."""
    yield f"\n{title(metric, size)}"
    yield line("", "median", "min", "max", "x floor" if metric.to_floor else "")
    for server, rows in by_server(samples).items():
        values = [row.metrics[metric.key] for row in rows]
        shown = [number(value) for value in (statistics.median(values), min(values), max(values))]
        yield line(server, *shown, to_floor(samples, server, metric), mark(rows, metric))


def side_by_side(samples: Samples, size: Size) -> Iterator[str]:
    """Return the medians as a table in Markdown."""
    with_ratio = [metric for metric in METRICS if metric.to_floor]
    titles = [title(metric, size) for metric in METRICS] + [f"{metric.key} x floor" for metric in with_ratio]
    yield f"\n| server | {' | '.join(titles)} |"
    yield "|---" * (1 + len(titles)) + "|"
    for server, rows in by_server(samples).items():
        cells = [f"{number(median(rows, metric.key))} {mark(rows, metric)}".rstrip() for metric in METRICS]
        cells += [to_floor(samples, server, metric) for metric in with_ratio]
        yield f"| {server} ({rows[0].language}) | {' | '.join(cells)} |"
    yield f"{BOUND} the core of the load tool was full, and the core of the server was not: the server can do more"


def lost(samples: Samples) -> Iterator[str]:
    """Return the losses of each server in all rounds, and the servers that failed."""
    yield f"\na message counts as missing if it has not arrived {GIVE_UP_SECONDS} s after the last one was published:"
    for server, rows in by_server(samples).items():
        yield f"{server}: {sum((row.losses for row in rows), Losses())}"
    for server, reason in samples.failures.items():
        yield f"{server}: failed: {reason}"


def line(name: str, *cells: str) -> str:
    return f"  {name:<24}" + "".join(f"{cell:>11}" for cell in cells)


def title(metric: Metric, size: Size) -> str:
    return f"{metric.title.format(clients=size.clients, many_clients=size.many_clients)}, {metric.unit}"


def mark(rows: list[Sample], metric: Metric) -> str:
    return BOUND if any(metric.key in row.bound for row in rows) else ""


def by_server(samples: Samples) -> dict[str, list[Sample]]:
    """Return the rows of each server, in the order of the first round."""
    found: dict[str, list[Sample]] = {}
    for row in samples.rows:
        found.setdefault(row.server, []).append(row)
    return found


def median(rows: list[Sample], key: str) -> float:
    return statistics.median(row.metrics[key] for row in rows)


def to_floor(samples: Samples, server: str, metric: Metric) -> str:
    """Return the median of the ratios to the floor within each round; empty if there is none."""
    floor = {row.round: row.metrics[metric.key] for row in samples.rows if row.server == FLOOR}
    ratios = [
        row.metrics[metric.key] / floor[row.round]
        for row in samples.rows
        if row.server == server != FLOOR and metric.to_floor and floor.get(row.round)
    ]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def number(value: float) -> str:
    """Format a number with at least three significant digits, and commas between thousands."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"
