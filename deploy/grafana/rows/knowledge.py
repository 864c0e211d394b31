"""Search, files on their way into stores, memory and summaries."""

from __future__ import annotations

from deploy.grafana.panels import A_SECOND, COUNT, SECONDS, Panel, Query, Row, increases

KNOWLEDGE = Row(
    "Retrieval and memory",
    (
        Panel(
            title="Search by stage (p95)",
            description="embed: the question's vector; update: the index takes in what was written since; search: the index "
            "itself. A long update after a quiet time is a store that is read into memory anew.",
            unit=SECONDS,
            queries=(
                Query(
                    "{{stage}}",
                    "histogram_quantile(0.95, sum by (stage, le) (rate(hermes2_search_seconds_bucket{@}[$__rate_interval])))",
                ),
            ),
        ),
        Panel(
            title="Files that were read",
            description="By how that ended, in each interval. failed: the file says why (last_error); released: to be tried "
            "again; gone: deleted meanwhile.",
            unit=COUNT,
            queries=increases("hermes2_ingest_files_total", "outcome"),
            stacked=True,
        ),
        Panel(
            title="Files by stage (p95)",
            description="read, parse, cut, embed, publish. embed is the longest where texts are long: some 20 chunks of 800 "
            "tokens a second and core.",
            unit=SECONDS,
            queries=(
                Query(
                    "{{stage}}",
                    "histogram_quantile(0.95, sum by (stage, le) (rate(hermes2_ingest_seconds_bucket{@}[$__rate_interval])))",
                ),
            ),
        ),
        Panel(
            title="Windows embedded",
            description="Pieces of files that the embedding model has read, a second. 0 while files wait: it is away.",
            unit=A_SECOND,
            queries=(Query("windows", "sum(rate(hermes2_ingest_windows_total{@}[$__rate_interval]))"),),
        ),
        Panel(
            title="Pages of turns into memory",
            description="By how that ended, in each interval. failed: tried again with the conversation's next turn; the "
            "event memory_not_written has the error.",
            unit=COUNT,
            queries=increases("hermes2_memory_pages_total", "outcome"),
            stacked=True,
        ),
        Panel(
            title="Recalls",
            description="Turns of conversations that had lost something, by what came of it, in each interval. failed: the "
            'turn was answered without, and says degraded: ["memory"].',
            unit=COUNT,
            queries=increases("hermes2_memory_recalls_total", "outcome"),
            stacked=True,
        ),
        Panel(
            title="Trims between turns",
            description="Conversations that were shortened in the background, in each interval. failed: the next turn does "
            "it, and takes longer; lost: the next turn came first.",
            unit=COUNT,
            queries=increases("hermes2_background_trims_total", "outcome"),
            stacked=True,
        ),
    ),
)
