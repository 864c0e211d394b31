"""Eight numbers that say whether to look on."""

from __future__ import annotations

from deploy.grafana.panels import A_SECOND, COUNT, SECONDS, SHARE, Row, number

GLANCE = Row(
    "At a glance: the last five minutes, as the alerts see them",
    (
        number(
            "Alerts",
            COUNT,
            'count(ALERTS{alertname=~"Hermes2.*", alertstate="firing"}) or vector(0)',
            "Alerts of this service that fire now. Each has a section in docs/monitoring.md.",
            alarm=1,
        ),
        number(
            "Instances down",
            COUNT,
            'count(up{job="hermes2"} == 0) or vector(0)',
            "Frontends that Prometheus knows and cannot scrape.",
            alarm=1,
        ),
        number(
            "Requests",
            A_SECOND,
            "sum(hermes2:http_requests:rate5m)",
            "All requests a second, probes and scrapes among them.",
        ),
        number(
            "Errors",
            SHARE,
            "max(hermes2:http_errors:ratio_rate5m)",
            "Share of requests that were answered 5xx. Red: Hermes2Errors is about to fire.",
            0.01,
            0.05,
        ),
        number(
            "Reply p95",
            SECONDS,
            "max(hermes2:request_duration_seconds:p95_rate5m)",
            "19 of 20 generations took no longer, from the request's first byte to the reply's last. Long replies take long.",
            0.8,
            1,
        ),
        number(
            "First token p95",
            SECONDS,
            "max(hermes2:time_to_first_token_seconds:p95_rate5m)",
            "19 of 20 streamed replies began no later.",
            0.4,
            0.5,
        ),
        number(
            "Wait p95",
            SECONDS,
            "max(hermes2:admission_wait_seconds:p95_rate5m)",
            "19 of 20 requests waited no longer for a place in the engine.",
            0.25,
            0.5,
        ),
        number(
            "Refused",
            SHARE,
            "max(hermes2:admission_rejections:ratio_rate5m)",
            "Share of generations that found no place: 503 server_overloaded.",
            0.01,
            0.05,
        ),
    ),
)
