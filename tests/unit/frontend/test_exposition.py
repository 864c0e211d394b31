"""frontend/observability/exposition: the metrics of several sources as one text that Prometheus takes."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from frontend.observability import exposition

OWN = """# HELP python_info Python platform information
# TYPE python_info gauge
python_info{version="3.11"} 1.0
# HELP shared_total Ours.
# TYPE shared_total counter
shared_total 1.0
"""
FOREIGN = """# HELP python_info Python platform information
# TYPE python_info gauge
python_info{version="3.12"} 1.0
# HELP process_open_fds Number of open file descriptors.
# TYPE process_open_fds gauge
process_open_fds 8.0
# HELP shared_total Theirs.
# TYPE shared_total counter
shared_total 2.0
# HELP vllm:ttft_seconds Time.
# TYPE vllm:ttft_seconds histogram
vllm:ttft_seconds_bucket{le="+Inf"} 2.0
vllm:ttft_seconds_count 2.0
vllm:ttft_seconds_sum 0.5
# HELP vllm:ttft_seconds_created Time.
# TYPE vllm:ttft_seconds_created gauge
vllm:ttft_seconds_created 1.8e9
# TYPE nv_count counter
nv_count{model="hermes2"} 3
bare_sample 4"""


def names(text: str) -> list[str]:
    return [family.name for family in text_string_to_metric_families(text)]


def test_a_family_is_there_once() -> None:
    """Ours before theirs; what any process counts of itself is ours alone, and when a counter began nobody asks."""
    text = exposition.joined(OWN, FOREIGN, FOREIGN)
    assert names(text) == ["python_info", "shared", "vllm:ttft_seconds", "nv_count", "bare_sample"]
    assert 'version="3.11"' in text
    assert "shared_total 1.0" in text
    assert "shared_total 2.0" not in text
    assert "process_open_fds" not in text


def test_samples_stay_with_their_family() -> None:
    """Buckets, sums and counts; the last line may lack its end."""
    text = exposition.joined("", FOREIGN)
    (histogram,) = [f for f in text_string_to_metric_families(text) if f.name == "vllm:ttft_seconds"]
    assert [sample.value for sample in histogram.samples] == [2.0, 2.0, 0.5]
    assert text.endswith("bare_sample 4\n")


def test_a_name_that_begins_like_another_s_is_its_own_family() -> None:
    """With HELP or without."""
    text = exposition.joined("# TYPE a gauge\na 1\n# TYPE a_b gauge\na_b 2\n", "a_b 3\n# TYPE c gauge\nc 4\nc_d 5\n")
    assert names(text) == ["a", "a_b", "c", "c_d"]
    assert "a_b 3" not in text


def test_nothing_is_nothing() -> None:
    """Of a source that does not answer."""
    assert exposition.joined("", "", "\n") == ""


def test_gauges_of_one_scrape() -> None:
    """Values by their labels, whatever stands in them."""
    gauges = exposition.Gauges()
    gauges.add("hermes2_up", "Whether.", [({"of": "sql"}, 1), ({"of": 'a "quoted"\nname'}, 0)])
    (family,) = text_string_to_metric_families(gauges.text())
    assert {sample.labels["of"]: sample.value for sample in family.samples} == {"sql": 1, 'a "quoted"\nname': 0}
