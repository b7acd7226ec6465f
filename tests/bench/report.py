"""Tables of the samples: median, minimum and maximum, and the ratio to the floor in the same round."""

import statistics
from collections.abc import Iterator, Sequence

from tests.bench.load import Losses
from tests.bench.rounds import GIVE_UP_SECONDS, METRICS, Metric, Sample, Samples, Size
from tests.bench.servers import FLOOR

BOUND = "+"  # mark of a metric that the load tool limited: its core was full, and the server's was not


def overview(samples: Samples, size: Size) -> Iterator[str]:
    """Return the metrics of each server that were measured, then the losses."""
    measured = {key for row in samples.rows for key in row.metrics}
    yield from table(samples, size, [metric for metric in METRICS if metric.key in measured])
    yield f"{BOUND} the core of the load tool was full, and the core of the server was not: the server can do more"
    yield from lost(samples)


def sizes(samples: Samples, _size: Size) -> Iterator[str]:
    """Return CPU per delivery and memory per client, by the number of clients."""
    counts = sorted({row.clients for row in samples.rows})
    for key, title in (("cpu", "CPU us per delivery"), ("memory", "memory per client, KiB")):
        yield f"{title:<26}" + "".join(f"{count:>9,}" for count in counts)
        for server, rows in by_server(samples).items():
            found = [[row.metrics[key] for row in rows if row.clients == count] for count in counts]
            cells = [number(statistics.median(values)) if values else "" for values in found]
            yield f"  {server:<24}" + "".join(f"{cell:>9}" for cell in cells)
    yield from lost(samples)


def table(samples: Samples, size: Size, metrics: Sequence[Metric]) -> Iterator[str]:
    """Return a table in Markdown: medians over the rounds with minimum and maximum, and the ratios to the floor."""
    titles = []
    for metric in metrics:
        title = metric.title.format(clients=size.clients, many_clients=size.many_clients)
        titles += [f"{title}, {metric.unit}", *(["x floor"] if metric.to_floor else [])]
    yield f"| server | {' | '.join(titles)} |"
    yield "|---" * (1 + len(titles)) + "|"
    for server, rows in by_server(samples).items():
        cells = [f"{server} ({rows[0].language})"]
        for metric in metrics:
            values = [row.metrics[metric.key] for row in rows]
            mark = BOUND if any(metric.key in row.bound for row in rows) else ""
            cells.append(f"{number(statistics.median(values))}{mark} ({number(min(values))} to {number(max(values))})")
            cells += [to_floor(samples, server, metric)] if metric.to_floor else []
        yield f"| {' | '.join(cells)} |"


def lost(samples: Samples) -> Iterator[str]:
    """Return the losses of each server in all rounds, and the servers that failed."""
    yield f"\na message counts as missing if it has not arrived {GIVE_UP_SECONDS} s after the last one was published:"
    for server, rows in by_server(samples).items():
        yield f"{server}: {sum((row.losses for row in rows), Losses())}"
    for server, reason in samples.failures.items():
        yield f"{server}: failed: {reason}"


def by_server(samples: Samples) -> dict[str, list[Sample]]:
    """Return the rows of each server, in the order of the first round."""
    found: dict[str, list[Sample]] = {}
    for row in samples.rows:
        found.setdefault(row.server, []).append(row)
    return found


def to_floor(samples: Samples, server: str, metric: Metric) -> str:
    """Return the median of the ratios to the floor within each round; empty if there is none."""
    floor = {row.round: row.metrics[metric.key] for row in samples.rows if row.server == FLOOR}
    ratios = [
        row.metrics[metric.key] / floor[row.round]
        for row in samples.rows
        if row.server == server != FLOOR and floor.get(row.round)
    ]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def number(value: float) -> str:
    """Format a number with at least three significant digits, and commas between thousands."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"
