"""deploy/METRICS.md, made of what the server registers: `python -m server.metrics_document`."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from server.telemetry import MetricDoc, Telemetry

_INTRODUCTION = """\
# Metrics

What `http://HOST:9464/metrics` tells. This file is made of the server's own registry by
`python -m server.metrics_document > deploy/METRICS.md`, and a test holds it true.

A stream's series appear with the stream, at zero, and go with it. `stream` is the stream's id,
never its URL; `reason` and `outcome` take few values, which the API's protos name. Times are in
seconds, sizes in bytes; a histogram has the series `_bucket`, `_sum` and `_count`. Recording
rules that sum these up are in `deploy/prometheus/rules/recording.yml`, alerts in
`deploy/prometheus/rules/alerts.yml`, and what to do about them in `deploy/RUNBOOK.md`.
"""


def document() -> str:
    """The whole file, in Markdown."""
    found = Telemetry().documented
    of_streams = [doc for doc in found if "stream" in doc.labels]
    of_server = [doc for doc in found if "stream" not in doc.labels]
    parts = [
        _INTRODUCTION,
        _table("Of each stream", of_streams),
        _table("Of the server", of_server),
        _standard_table(),
    ]
    return "\n".join(parts)


def _table(title: str, metrics: list[MetricDoc]) -> str:
    rows = [
        f"| `{doc.name}` | {doc.kind} | {_labels(doc)} | {doc.text}{_buckets(doc)} |"
        for doc in sorted(metrics, key=lambda doc: doc.name)
    ]
    return "\n".join(
        [f"## {title}\n", "| Name | Type | Labels | Meaning |", "|---|---|---|---|", *rows, ""]
    )


def _labels(doc: MetricDoc) -> str:
    return ", ".join(f"`{label}`" for label in doc.labels)


def _buckets(doc: MetricDoc) -> str:
    return f" Buckets: {', '.join(f'{bound:g}' for bound in doc.buckets)}." if doc.buckets else ""


def _standard_table() -> str:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    rows = [
        f"| `{name}` | {metric.type} | {metric.documentation} |"
        for metric in sorted(registry.collect(), key=lambda metric: metric.name)
        for name in sorted({sample.name for sample in metric.samples})
    ]
    title = "## Of its main process, by prometheus_client\n\nDecode workers are not in it.\n"
    return "\n".join([title, "| Name | Type | Meaning |", "|---|---|---|", *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(document())
