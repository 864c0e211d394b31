"""What users see: answers, failures and times."""

from __future__ import annotations

from deploy.grafana.panels import A_SECOND, GENERATING, SECONDS, Panel, Query, Row, quantiles, rates

USERS = Row(
    "What users see",
    (
        Panel(
            title="Requests by status",
            description="Answers a second. 429: over the tenant's limits. 499: the client left. 503: no room, or something is "
            "away. 500: a defect, always.",
            unit=A_SECOND,
            queries=rates("hermes2_http_requests_total", "status"),
            stacked=True,
        ),
        Panel(
            title="Failures by route",
            description="Where the 5xx come from. One route alone: look at what only it needs (files and stores: SQL and the "
            "embedding model). All of them: the engine, or overload.",
            unit=A_SECOND,
            queries=(
                Query(
                    "{{route}} {{status}}",
                    'sum by (route, status) (rate(hermes2_http_requests_total{@, status=~"5.."}[$__rate_interval]))',
                ),
            ),
            stacked=True,
        ),
        Panel(
            title="Reply time",
            description="Generations, from the request's first byte to the reply's last. It grows with the length of the "
            "replies; compare it with the time to the first token and between tokens before looking for a fault.",
            unit=SECONDS,
            queries=(
                *quantiles("hermes2_http_request_duration_seconds", f", {GENERATING}"),
                Query("budget", "hermes2:request_duration_budget_seconds"),
            ),
        ),
        Panel(
            title="Time to first token",
            description="Streamed replies. Queueing, building the prompt with what is retrieved, and the prefill are in it. "
            "High with a short wait for a place: long prompts that the prefix cache does not hold, or slow "
            "retrieval.",
            unit=SECONDS,
            queries=(
                *quantiles("hermes2_time_to_first_token_seconds"),
                Query("budget", "hermes2:time_to_first_token_budget_seconds"),
            ),
        ),
        Panel(
            title="Time between tokens",
            description="Streamed replies, the average of each. It grows with the batch, which is meant; a jump at the same "
            "batch means that the engine lacks cores or memory bandwidth.",
            unit=SECONDS,
            queries=quantiles("hermes2_inter_token_latency_seconds"),
        ),
        Panel(
            title="Slow routes",
            description="p95 of every route. What needs no engine should stay under 50 ms; if all of these rise together, "
            "look at SQL and at the frontend's CPU.",
            unit=SECONDS,
            queries=(
                Query(
                    "{{route}}",
                    "histogram_quantile(0.95, sum by (route, le) "
                    "(rate(hermes2_http_request_duration_seconds_bucket{@}[$__rate_interval])))",
                ),
            ),
        ),
    ),
)
