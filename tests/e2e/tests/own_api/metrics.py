"""Reads a metrics page with Prometheus' own parser and checks what it holds."""
import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

with urllib.request.urlopen(sys.argv[1], timeout=20) as answer:
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8", answer.headers
    text = answer.read().decode()

families = {family.name: family for family in text_string_to_metric_families(text)}
assert len(families) == sum(line.startswith("# TYPE ") for line in text.splitlines()), "every family has its own place"
for family in families.values():
    assert family.type in ("counter", "gauge", "histogram"), family
    assert family.documentation and family.samples, family.name


def value(name, **labels):
    family = families.get(name) or families[name.removesuffix("_total")]
    found = [s.value for s in family.samples if labels.items() <= s.labels.items() and s.name in (name, name + "_total")]
    assert len(found) == 1, (name, labels, found)
    return found[0]


assert value("boxyard_containers", state="running") == 1
assert value("boxyard_containers", state="exited") == 1
assert value("boxyard_containers", state="created") == 1
assert value("boxyard_builds", state="done") == 1
assert value("boxyard_builds", state="failed") == 1
assert value("boxyard_images") >= 2
assert value("boxyard_store_bytes") > 100_000
for service in ("gateway", "layer-store", "registry-sync", "node", "build-worker"):
    assert value("boxyard_up", service=service) == 1
    assert value("process_resident_memory_bytes", service=service) > 1_000_000
    assert value("process_start_time_seconds", service=service) > 1_700_000_000
assert value("boxyard_http_requests_total", method="POST", route="/containers/create", code="201") == 3

for name in ("boxyard_http_request_duration_seconds", "boxyard_bus_served_seconds"):
    series = {}
    for sample in families[name].samples:
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        series.setdefault(labels, []).append(sample)
    for labels, samples in series.items():
        buckets = [s for s in samples if s.name.endswith("_bucket")]
        bounds = [float(s.labels["le"]) for s in buckets]
        assert bounds == sorted(bounds) and bounds[-1] == float("inf"), labels
        counts = [s.value for s in buckets]
        assert counts == sorted(counts), labels
        (count,) = (s.value for s in samples if s.name.endswith("_count"))
        assert counts[-1] == count > 0, labels
