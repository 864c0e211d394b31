"""Whether what the service needs is there, and what its process takes."""

from __future__ import annotations

from deploy.grafana.panels import BYTES, CORES, COUNT, Panel, Query, Row

PROCESS = Row(
    "Dependencies and process",
    (
        Panel(
            title="Dependencies",
            description="Whether each answered the scrape. engine: nothing is generated without it; sql: nothing that lasts "
            "is read or written; embedder: no search; valkey: limits are counted locally; triton: its metrics "
            "only.",
            unit=COUNT,
            queries=(Query("{{dependency}} {{instance}}", "hermes2_dependency_up{@}"),),
            kind="states",
            width=16,
        ),
        Panel(
            title="Valkey's failures",
            description="Commands that failed or took longer than valkey.timeout_s, leases that could not be settled or "
            "renewed, and whether commands are tried at all just now (breaker: 1 no).",
            unit=COUNT,
            queries=(
                Query("commands a second", "sum(rate(hermes2_valkey_failures_total{@}[$__rate_interval]))"),
                Query("settled later, a second", "sum(rate(hermes2_limit_settle_failures_total{@}[$__rate_interval]))"),
                Query("not renewed, a second", "sum(rate(hermes2_limit_renew_failures_total{@}[$__rate_interval]))"),
                Query("breaker", "max(hermes2_valkey_breaker_open{@})"),
            ),
        ),
        Panel(
            title="Frontend memory",
            description="Resident memory of a frontend process. Its share of memory_limit is memory.frontend_worker and "
            "memory.indexes; a slope over days is a leak. Empty with several workers: Prometheus' client does not "
            "tell it then.",
            unit=BYTES,
            queries=(Query("{{instance}}", 'process_resident_memory_bytes{job="hermes2", @}'),),
        ),
        Panel(
            title="Frontend CPU",
            description="Cores that a frontend process uses. Near 1 it is the limit: its event loop has one core (workers "
            "gives more processes). Empty with several workers.",
            unit=CORES,
            queries=(Query("{{instance}}", 'rate(process_cpu_seconds_total{job="hermes2", @}[$__rate_interval])'),),
        ),
        Panel(
            title="File descriptors",
            description="Open ones, and how many there may be. Each connection and each stream holds one. Empty with several "
            "workers.",
            unit=COUNT,
            queries=(
                Query("open {{instance}}", 'process_open_fds{job="hermes2", @}'),
                Query("most {{instance}}", 'process_max_fds{job="hermes2", @}'),
            ),
        ),
        Panel(
            title="What runs",
            description="Version, Python, model and engine of each instance. After an upgrade all of them should say the "
            "same.",
            unit=COUNT,
            queries=(
                Query("{{instance}}: {{version}}, Python {{python}}, {{model}} on {{engine}}", "hermes2_build_info{@}"),
            ),
            kind="names",
            width=24,
        ),
    ),
)
