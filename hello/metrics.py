"""The metrics of a process, in Prometheus's own types. It knows no other module; each module sets its own metrics."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

# Seconds: from a relay in the same process, over a network, to a channel that was away for some time.
DELAYS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One registry for one process, so that several processes can live in one event loop."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.published = counter("hello_messages_published", "Messages that the channel accepted from this process.")
        self.fenced = counter("hello_messages_fenced", "Messages refused, since another broadcaster is the leader.")
        self.leader = gauge("hello_leader", "1 while the broadcaster of this process is the leader, else 0.")
        self.relayed = counter("hello_messages_relayed", "Messages that this relay sent on to its clients.")
        self.gaps = counter("hello_gaps", "Losses in the channel (relay), gaps sent to clients (client).", ["reader"])
        for reader in ("relay", "client"):
            self.gaps.labels(reader)
        self.relay_seconds = histogram(
            "hello_relay_seconds", "Seconds from broadcast to relay, by the clocks of both machines.", buckets=DELAYS
        )
        self.channel_up = gauge("hello_channel_up", "1 while the channel replies to this actor, else 0.", ["actor"])
        self.channel_last_reply_age = gauge(
            "hello_channel_last_reply_age_seconds", "Seconds since the channel last replied to this actor.", ["actor"]
        )
        self.refused = counter("hello_refused", "What the public server refused of its clients.", ["reason"])
        self.clients = gauge("hello_clients", "Clients connected to this relay.")
        self.slow_clients = gauge("hello_slow_clients", "Clients that have blocked a write for more than a second.")
        self.lag = gauge("hello_client_lag_messages", "Messages that the slowest client has not been sent yet.")
