"""The metrics of a process, in Prometheus's own types. It knows no other module; each module sets its own metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

# Seconds: from a relay in the same process, over a network, to a channel that was away for some time.
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
            "Messages that the channel refused since another broadcaster is the leader.",
            registry=self.registry,
        )
        self.leader = Gauge(
            "hello_leader", "1 while the broadcaster of this process is the leader, else 0.", registry=self.registry
        )
        self.relayed = Counter(
            "hello_messages_relayed", "Messages that this relay sent on to its clients.", registry=self.registry
        )
        self.gaps = Counter(
            "hello_gaps",
            "Losses that this relay found in the channel (relay), and gaps that its clients were sent (client).",
            ["reader"],
            registry=self.registry,
        )
        for reader in ("relay", "client"):
            self.gaps.labels(reader)
        self.relay_seconds = Histogram(
            "hello_relay_seconds",
            "Seconds from broadcast to relay, by the clocks of both machines.",
            buckets=DELAYS,
            registry=self.registry,
        )
        self.channel_up = Gauge(
            "hello_channel_up", "1 while the channel replies to this actor, else 0.", ["actor"], registry=self.registry
        )
        self.channel_last_reply_age = Gauge(
            "hello_channel_last_reply_age_seconds",
            "Seconds since the channel last replied to this actor.",
            ["actor"],
            registry=self.registry,
        )
        self.refused = Counter(
            "hello_refused", "What the public server refused of its clients.", ["reason"], registry=self.registry
        )
        self.clients = Gauge("hello_clients", "Clients connected to this relay.", registry=self.registry)
        self.slow_clients = Gauge(
            "hello_slow_clients", "Clients that have blocked a write for more than a second.", registry=self.registry
        )
        self.lag = Gauge(
            "hello_client_lag_messages",
            "Messages that the slow client that lags most has not been sent yet.",
            registry=self.registry,
        )
