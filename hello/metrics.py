"""What a process measures of itself, in Prometheus's own types. It knows no other room; each fills in its part."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

# Seconds: from a relay in the same process, over a network, to a channel that was away for a while.
DELAYS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One registry for one process, so that several processes can live in one event loop."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.published = Counter(
            "hello_messages_published", "Messages that the channel accepted from this process.", registry=self.registry
        )
        self.fenced = Counter(
            "hello_messages_fenced",
            "Messages that the channel refused since another broadcaster has the voice.",
            registry=self.registry,
        )
        self.voice = Gauge(
            "hello_voice", "1 while this process's broadcaster may speak, else 0.", registry=self.registry
        )
        self.relayed = Counter(
            "hello_messages_relayed", "Messages that this relay passed on to its browsers.", registry=self.registry
        )
        self.gaps = Counter(
            "hello_gaps",
            "Losses told, to this relay by the channel or to a browser.",
            ["reader"],
            registry=self.registry,
        )
        for reader in ("relay", "browser"):
            self.gaps.labels(reader)
        self.relay_seconds = Histogram(
            "hello_relay_seconds",
            "Seconds from broadcast to relay, by the clocks of the two.",
            buckets=DELAYS,
            registry=self.registry,
        )
        self.channel_up = Gauge(
            "hello_channel_up", "1 while this actor's channel answers, else 0.", ["actor"], registry=self.registry
        )
        self.channel_word_age = Gauge(
            "hello_channel_word_age_seconds",
            "Seconds since the channel last said anything to this actor.",
            ["actor"],
            registry=self.registry,
        )
        self.browsers = Gauge("hello_browsers", "Browsers connected to this relay.", registry=self.registry)
        self.slow_browsers = Gauge(
            "hello_slow_browsers",
            "Browsers that keep this relay waiting for more than a second.",
            registry=self.registry,
        )
        self.lag = Gauge(
            "hello_browser_lag_messages",
            "Messages that the slow browser that lags most has not taken yet.",
            registry=self.registry,
        )
