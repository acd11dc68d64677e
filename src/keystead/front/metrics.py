"""What the front counts, and its Prometheus page together with the vault's own samples.

The hot path adds to plain dictionaries; they become samples when somebody scrapes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from keystead.frames.messages import Metric as VaultMetric
from keystead.frames.messages import StatusInfo
from keystead.front.admission import Admission
from keystead.net.link import VaultLink

__all__ = ["CONTENT_TYPE", "FrontMetrics", "render"]

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
"""Of the text exposition format, which every scraper reads."""

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class FrontMetrics:
    """Counters of one front. Labels come from closed sets: routes, problem codes, reasons."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str], int] = {}
        self._items: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._seconds: dict[str, list[int]] = {}
        self._seconds_sum: dict[str, float] = {}
        self._received_bytes = 0
        self._sent_bytes = 0

    def answered(self, route: str, code: str, seconds: float, sent_bytes: int) -> None:
        """Count one answer: ``code`` is ``ok`` or the problem's."""
        pair = (route, code)
        self._requests[pair] = self._requests.get(pair, 0) + 1
        self._sent_bytes += sent_bytes
        slots = self._seconds.get(route)
        if slots is None:
            slots = self._seconds[route] = [0] * (len(_BUCKETS_S) + 1)
            self._seconds_sum[route] = 0.0
        slots[bisect_left(_BUCKETS_S, seconds)] += 1
        self._seconds_sum[route] += seconds

    def refused(self, reason: str) -> None:
        """Count what the front refused by itself, by its reason."""
        self._refusals[reason] = self._refusals.get(reason, 0) + 1

    def received(self, body_bytes: int) -> None:
        """Count a body."""
        self._received_bytes += body_bytes

    def item(self, code: str) -> None:
        """Count one item of a batch: ``ok`` or the problem's code."""
        self._items[code] = self._items.get(code, 0) + 1

    def families(self, admission: Admission, link: VaultLink) -> Iterator[Metric]:
        """The samples as they stand now."""
        requests = CounterMetricFamily(
            "keystead_front_requests", "Answers, by route and code", labels=("route", "code")
        )
        for (route, code), count in self._requests.items():
            requests.add_metric((route, code), count)
        yield requests
        yield _by_label("keystead_front_batch_items", "Items of batches", "code", self._items)
        yield _by_label(
            "keystead_front_refusals", "What the front refused itself", "reason", self._refusals
        )
        yield _by_label(
            "keystead_front_body_bytes",
            "Bytes of bodies",
            "direction",
            {"received": self._received_bytes, "sent": self._sent_bytes},
        )
        yield self._histogram()
        for name, what, count in (
            ("vault_frames", "Frames sent to the vault", link.frames_sent),
            ("vault_connects", "Connections made to the vault", link.connects),
        ):
            yield CounterMetricFamily(f"keystead_front_{name}", what, value=count)
        for name, what, value in (
            ("in_flight", "Data-plane requests that are open", admission.in_flight),
            ("in_flight_limit", "How many may be open now", admission.pressure.limit),
            ("in_flight_body_bytes", "Bytes of their bodies", admission.body_bytes),
            ("in_flight_batch_items", "Items of their batches", admission.batch_items),
            ("vault_up", "Whether the vault is connected", int(link.connected)),
        ):
            yield GaugeMetricFamily(f"keystead_front_{name}", what, value=value)

    def _histogram(self) -> Metric:
        family = HistogramMetricFamily(
            "keystead_front_request_seconds",
            "From a request's head to its answer, by route",
            labels=("route",),
        )
        for route, slots in self._seconds.items():
            total = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip([*map(str, _BUCKETS_S), "+Inf"], slots, strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric((route,), buckets, self._seconds_sum[route])
        return family


class _Families(Collector):
    """Families that are at hand already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(families: Iterable[Metric], status: StatusInfo | None) -> bytes:
    """The page: the front's families, and the vault's if it answered."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    if status is not None:
        registry.register(_Families(_vault_families(status.metrics)))
    return generate_latest(registry)


def _vault_families(metrics: Iterable[VaultMetric]) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    for sample in metrics:
        # A counter's family has the name without `_total`; its samples have it.
        counter = sample.kind == "counter"
        family_name = sample.name.removesuffix("_total") if counter else sample.name
        family = families.get(family_name)
        if family is None:
            kind = sample.kind if sample.kind in {"counter", "gauge"} else "unknown"
            family = families[family_name] = Metric(family_name, sample.help, kind)
        family.add_sample(
            f"{family_name}_total" if counter else sample.name, sample.labels, sample.value
        )
    yield from families.values()


def _by_label(name: str, what: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, what, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family
