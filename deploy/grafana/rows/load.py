"""What is asked of the service, what waits and what is refused."""

from __future__ import annotations

from deploy.grafana.panels import A_SECOND, COUNT, SECONDS, Panel, Query, Row, quantiles, rates

LOAD = Row(
    "Load and queue",
    (
        Panel(
            title="In the engine and before it",
            description="Slots: choices that the engine works on; requests that wait for one; generations that a client waits "
            "for. Slots at their most (admission.slots) and a queue that never empties: the engine is the limit.",
            unit=COUNT,
            queries=(
                Query("slots taken", "sum(hermes2_admission_slots_taken{@})"),
                Query("waiting", "sum(hermes2_admission_waiting{@})"),
                Query("open", "sum(hermes2_generations_open{@})"),
            ),
        ),
        Panel(
            title="Wait for a place",
            description="Of those that got one. Over the budget for long: the service is smaller than its load; see "
            "docs/overload.md.",
            unit=SECONDS,
            queries=(
                *quantiles("hermes2_admission_wait_seconds"),
                Query("budget", "hermes2:admission_wait_budget_seconds"),
            ),
        ),
        Panel(
            title="Refused for want of a place",
            description="503 server_overloaded. full: the queue had no room; displaced: another tenant's turn; waited: "
            "admission.max_wait_s was over.",
            unit=A_SECOND,
            queries=rates("hermes2_admission_rejections_total", "reason"),
            stacked=True,
        ),
        Panel(
            title="Refused for a limit",
            description="429 rate_limit_exceeded, by the limit: requests or tokens a minute, or generations at a time. The "
            "log lines with status 429 say whose; docs/limits.md says how to change a plan.",
            unit=A_SECOND,
            queries=rates("hermes2_limit_rejections_total", "limit"),
            stacked=True,
        ),
        Panel(
            title="Generations by their end",
            description="completed; cancelled: the client left, or nobody needed the rest; failed: the engine broke off, in a "
            "stream after its 200. Failures in a burst belong to a restart of the engine.",
            unit=A_SECOND,
            queries=rates("hermes2_generations_total", "outcome"),
            stacked=True,
        ),
        Panel(
            title="Limits without Valkey",
            description="Processes that count limits alone, each at its share. Above 0 for more than seconds: Valkey is away "
            "or slow.",
            unit=COUNT,
            queries=(Query("{{instance}}", "hermes2_limits_local{@}"),),
        ),
    ),
)
