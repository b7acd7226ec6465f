"""Tables of the samples: median, minimum and maximum, and the ratio to the floor in the same round."""

import statistics
from collections.abc import Callable, Iterator

from tests.bench.load import Losses
from tests.bench.rounds import GIVE_UP_SECONDS, METRICS, Metric, Sample, Samples, Size, median
from tests.bench.servers import FLOOR

BOUND = "+"  # mark of a metric that the load tool limited: its core was full, and the server's was not


def overview(samples: Samples, size: Size) -> Iterator[str]:
    """Return all metrics: each with its spread, then the medians side by side, then the losses."""
    for metric in METRICS:
        title = metric.title.format(clients=size.clients, many_clients=size.many_clients)
        yield ""
        yield f"{title}, {metric.unit}"
        yield from spread(samples, metric)
    yield ""
    yield from side_by_side(samples)
    yield ""
    yield from lost(samples)


def spread(samples: Samples, metric: Metric) -> Iterator[str]:
    """Return one metric of each server, over the rounds."""
    yield f"  {'':<24}{'median':>11}{'min':>11}{'max':>11}" + (f"{'x floor':>11}" if metric.to_floor else "")
    for server, rows in by_server(samples).items():
        values = [row.metrics[metric.key] for row in rows]
        line = f"  {server:<24}" + "".join(
            f"{number(value):>11}" for value in (statistics.median(values), min(values), max(values))
        )
        if metric.to_floor and (ratio := to_floor(samples, server, metric.key)) is not None:
            line += f"{ratio:>11.2f}"
        yield line + (f" {BOUND}" if any(metric.key in row.bound for row in rows) else "")


def side_by_side(samples: Samples) -> Iterator[str]:
    """Return the medians as a table in Markdown."""
    shown = {
        "cpu_20": "CPU us per delivery, 20/s",
        "cpu_100": "100/s",
        "window_8": "deliveries/s, 8 in flight",
        "open_1000": "open loop, 1,000/s",
        "open_1000_p99": "p99 ms",
        "connect_cpu": "connect, CPU s",
        "connect_wall": "time s",
        "memory": "KiB per client",
        "slowest": "slowest, ms",
    }
    yield "| server | " + " | ".join(shown.values()) + " | CPU x floor, 100/s | slowest x floor |"
    yield "|---" * (len(shown) + 3) + "|"
    for server, rows in by_server(samples).items():
        cells = []
        for key in shown:
            mark = f" {BOUND}" if any(key in row.bound for row in rows) else ""
            cells.append(number(median(rows, key)) + mark)
        for key in ("cpu_100", "slowest"):
            ratio = to_floor(samples, server, key)
            cells.append("" if ratio is None else f"{ratio:.2f}")
        yield f"| {server} ({rows[0].language}) | " + " | ".join(cells) + " |"
    if any(row.bound for row in samples.rows):
        yield ""
        yield f"{BOUND} the core of the load tool was full, and the core of the server was not: the server can do more"


def pairs(samples: Samples) -> Iterator[str]:
    """Return one line for each round, then the medians."""
    servers = by_server(samples)
    (metric,) = (metric for metric in METRICS if metric.key == "cpu_100")
    yield "round " + "".join(f"{server:>20}" for server in servers)
    for round_ in sorted({row.round for row in samples.rows}):
        cells = []
        for server, rows in servers.items():
            value = next((row.metrics["cpu_100"] for row in rows if row.round == round_), None)
            ratio = ratios(samples, server, "cpu_100").get(round_)
            cell = "" if value is None else number(value)
            cells.append(f"{cell}{'' if ratio is None else f' ({ratio:.2f})':>8}")
        yield f"{round_:>5} " + "".join(f"{cell:>20}" for cell in cells)
    yield ""
    yield from spread(samples, metric)
    yield ""
    yield from lost(samples)


def sizes(samples: Samples) -> Iterator[str]:
    """Return CPU per delivery and memory per client, by the number of clients."""
    counts = sorted({row.clients for row in samples.rows})
    for key, title in (("cpu", "CPU us per delivery"), ("memory", "memory per client, KiB")):
        yield f"{title:<26}" + "".join(f"{count:>9,}" for count in counts)
        for server, rows in by_server(samples).items():
            line = f"  {server:<24}"
            for count in counts:
                found = [row for row in rows if row.clients == count]
                line += f"{number(median(found, key)) if found else '':>9}"
            yield line
        yield ""
    yield from lost(samples)


def lost(samples: Samples) -> Iterator[str]:
    """Return the losses of each server in all rounds, and the servers that failed."""
    yield f"a message counts as missing if it has not arrived {GIVE_UP_SECONDS} s after the last one was published:"
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


def to_floor(samples: Samples, server: str, key: str) -> float | None:
    """Return the median over the rounds of the ratio to the floor in the same round; None if there is no such round."""
    found = ratios(samples, server, key).values()
    return statistics.median(found) if found else None


def ratios(samples: Samples, server: str, key: str) -> dict[int, float]:
    """Return the ratio to the floor, by round."""
    floor = {row.round: row.metrics[key] for row in samples.rows if row.server == FLOOR}
    if server == FLOOR:
        return {}
    return {
        row.round: row.metrics[key] / floor[row.round]
        for row in samples.rows
        if row.server == server and floor.get(row.round)
    }


def number(value: float) -> str:
    """Format a number with at least three significant digits, and commas between thousands."""
    digits: Callable[[float], int] = lambda size: 0 if size >= 100 else 1 if size >= 10 else 2  # noqa: E731
    return f"{value:,.{digits(abs(value))}f}"
