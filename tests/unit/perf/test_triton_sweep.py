"""perf_analyzer: what it is given, and how its export is read."""

import json

import msgspec

from perf import plot, triton_sweep

MS = 1_000_000
EXPORT = {
    "service_kind": "triton",
    "experiments": [
        {
            "experiment": {"mode": "request_rate", "value": 20.0},
            "requests": [
                {"timestamp": 0, "response_timestamps": [10 * MS, 60 * MS, 100 * MS], "response_outputs": [{}]},
                {"timestamp": 50 * MS, "response_timestamps": [80 * MS, 250 * MS]},
            ],
            "window_boundaries": [0, 300 * MS],
        }
    ],
}


def test_times_are_those_of_the_first_and_the_last_message() -> None:
    """perf_analyzer's own latency is that of the first alone."""
    (one,) = msgspec.json.decode(json.dumps(EXPORT), type=triton_sweep.Export).experiments
    assert [one.ttft_s(share) for share in (0.0, 0.99)] == [0.01, 0.03]
    assert [one.total_s(share) for share in (0.0, 0.99)] == [0.1, 0.2]
    assert one.answered_per_s == 8
    assert triton_sweep.row(one) == "| 20 | 8.0 | 2 | 30 | 30 | 30 | 200 | 200 | 200 | 2.5 |"
    assert all(isinstance(panel, plot.Lines) for panel in triton_sweep.pictures([one]))


def test_no_two_prompts_are_alike() -> None:
    """Else the prefix cache answers for the model."""
    rows = json.loads(triton_sweep.data(500, seed=1))["data"]
    assert len({row["text_input"][0] for row in rows}) == 500
    assert json.loads(rows[0]["sampling_parameters"][0])["max_tokens"] == 32
