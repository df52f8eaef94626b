"""Counts and times for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "mufin_requests", "requests answered", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "mufin_request_seconds",
            "from the headers of a request to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.under_way = Gauge(
            "mufin_requests_under_way", "requests being answered", registry=registry
        )
        self.queue = Gauge(
            "mufin_queue_depth", "questions and changes that wait", registry=registry
        )
        self.batches = Histogram(
            "mufin_batch_size",
            "questions per call of the recommender",
            buckets=SIZES,
            registry=registry,
        )
        self.device = Counter(
            "mufin_device_seconds",
            "that the device thread was busy, by what it did",
            ["work"],
            registry=registry,
        )
        self.answers = Counter("mufin_answers", "recommended products", registry=registry)
        self.fallbacks = Counter(
            "mufin_fallbacks", "recommended products by popularity alone", registry=registry
        )
        self.live = Gauge(
            "mufin_live_products", "products added or changed since training", registry=registry
        )
        self.swaps = Counter("mufin_swaps", "models loaded, by outcome", ["ok"], registry=registry)
        self.model = Info("mufin_model", "the model that answers", registry=registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)
