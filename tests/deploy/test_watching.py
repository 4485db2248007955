"""The alerts and the dashboard name metrics that exist, fire when they should, and link to the manual."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.manifests import DEPLOY, ROOT, manifests
from tests.support.tools import skip_without
from whereby_trigger.metrics import METRICS, PREFIX, Counts, Outcome
from whereby_trigger.store import RefusalReason

ALERTS = DEPLOY / "prometheus/alerts.yaml"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
BY_NAME = {rule["alert"]: rule for rule in RULES}
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]

NAMES = {PREFIX + metric.name for metric in METRICS if metric.type != "histogram"} | {
    f"{PREFIX}{metric.name}_{suffix}"
    for metric in METRICS
    if metric.type == "histogram"
    for suffix in ("bucket", "sum", "count")
}


def named(text: str) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}\w+", text))


def test_every_metric_that_an_alert_or_the_dashboard_names_exists() -> None:
    asked = [variable["query"] for variable in DASHBOARD["templating"]["list"]]
    used = set().union(*map(named, [*(rule["expr"] for rule in RULES), *QUERIES, *asked]))
    assert used
    assert used <= NAMES


def test_the_prometheus_operator_gets_the_same_alerts() -> None:
    (rule,) = manifests("PrometheusRule")
    assert rule["spec"]["groups"] == yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]


def test_the_dashboard_shows_every_metric() -> None:
    shown = set().union(*map(named, QUERIES))
    for metric in METRICS:
        assert {name for name in shown if name.startswith(PREFIX + metric.name)}, metric.name


def test_every_value_of_a_label_that_is_asked_for_exists() -> None:
    """A misspelt reason would never fire."""
    counts = Counts()
    values = {
        "reason": {str(reason) for reason in (*RefusalReason, *Outcome)},
        "status": {"closed", "200", *(str(reason.status) for reason in RefusalReason)},
        "result": {result for result, _ in counts.runs},
        "state": {"waiting", *(state for _, state in counts.runs)},
        "use": {"used", "free"},
        "kind": {"busy", "unavailable", "refused"},
    }
    found = re.findall(r'(\w+)(?:=|!=|=~)"([^"$]+)"', "\n".join([*(rule["expr"] for rule in RULES), *QUERIES]))
    assert found
    for label, wanted in found:
        assert set(wanted.split("|")) <= values[label], (label, wanted)


def test_each_alert_says_what_is_wrong_and_leads_to_a_section_of_the_manual() -> None:
    for rule in RULES:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, rule["alert"]
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in ("critical", "warning")
    assert len(BY_NAME) == len(RULES)


def test_the_dashboards_panels_have_their_own_ids_and_places() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    assert all(panel["description"] and panel["title"] for panel in PANELS)


def promtool(*arguments: str) -> None:
    skip_without("promtool")
    checked = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_promtool_takes_the_alerts() -> None:
    promtool("check", "rules", str(ALERTS))


def test_promtool_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    variables = {"$__rate_interval": "5m", "$job": "whereby-trigger", "$instance": ".*"}
    rules = []
    for number, query in enumerate(QUERIES):
        for name, value in variables.items():
            query = query.replace(name, value)
        rules.append({"record": f"query:{number}", "expr": query})
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(tmp_path / "queries.yaml"))


ONE = 'job="w",instance="1"'
HEALTHY = {
    f"{PREFIX}up{{{ONE}}}": "1x80",
    f"{PREFIX}store_up{{{ONE}}}": "1x80",
    f"{PREFIX}lease_seconds{{{ONE}}}": "25x80",
    f'{PREFIX}store_errors_total{{{ONE},kind="unavailable"}}': "3x80",
    f'{PREFIX}store_errors_total{{{ONE},kind="busy"}}': "0+9x80",
    f'{PREFIX}deliveries_total{{{ONE},status="200",reason="stored"}}': "0+50x80",
    f'{PREFIX}deliveries_total{{{ONE},status="401",reason="wrong signature"}}': "7x80",
    f'{PREFIX}deliveries_total{{{ONE},status="404",reason="wrong path"}}': "7x80",
    f'{PREFIX}deliveries_total{{{ONE},status="503",reason="the store failed"}}': "7x80",
    f"{PREFIX}oldest_pending_seconds{{{ONE}}}": "2x80",
    f'{PREFIX}runs_total{{{ONE},result="returned",state="ended"}}': "0+3x80",
    f'{PREFIX}runs_total{{{ONE},result="raised",state="failed"}}': "2x80",
    f'{PREFIX}runs_total{{{ONE},result="raised",state="waiting"}}': "2x80",
    f'{PREFIX}slots{{{ONE},use="free"}}': "5x80",
    f'{PREFIX}rooms{{{ONE},state="waiting"}}': "1x80",
    f"{PREFIX}spilled{{{ONE}}}": "0x80",
    f"{PREFIX}log_lines_dropped_total{{{ONE}}}": "4x80",
}
"""Series of a running replica, with a sample every 15 s."""

BROKEN: dict[str, tuple[dict[str, str], str]] = {
    "WherebyTriggerNoLease": ({"lease_seconds": "25 0x80"}, "instance"),
    "WherebyTriggerStoreUnavailable": ({"store_up": "1 0x80"}, "instance"),
    "WherebyTriggerStoreErrors": ({'store_errors_total{kind="unavailable"}': "0+1x80"}, "instance"),
    "WherebyTriggerDeliveriesLost": ({'deliveries_total{status="503"}': "0x30 1+1x50"}, "job"),
    "WherebyTriggerWrongSignature": ({'deliveries_total{reason="wrong signature"}': "0+1x80"}, "job"),
    "WherebyTriggerWrongPath": ({'deliveries_total{reason="wrong path"}': "0+1x80"}, "job"),
    "WherebyTriggerPendingForLong": ({"oldest_pending_seconds": "0+15x80"}, "job"),
    "WherebyTriggerRunFailed": ({'runs_total{state="failed"}': "0x30 1x50"}, "job"),
    "WherebyTriggerRunsFailing": ({'runs_total{result="raised",state="waiting"}': "0+1x80"}, "job"),
    "WherebyTriggerNoFreeSlot": ({"slots": "0x80"}, "job"),
    "WherebyTriggerSpillNotEmpty": ({"spilled": "0+1x80"}, "instance"),
    "WherebyTriggerLogLinesDropped": ({"log_lines_dropped_total": "0x30 9x50"}, "instance"),
}
"""Causes of each alert, within ten minutes: series that differ, and the label of where."""


def series_with(changes: dict[str, str]) -> list[dict[str, str]]:
    """Return the healthy series, with other values for those that a change describes by name and some labels."""
    series = dict(HEALTHY)
    for described, values in changes.items():
        name, _, labels = described.removesuffix("}").partition("{")
        wanted = [label for label in labels.split(",") if label]
        (key,) = (
            key for key in HEALTHY if key.startswith(f"{PREFIX}{name}{{") and all(label in key for label in wanted)
        )
        series[key] = values
    return [{"series": key, "values": values} for key, values in series.items()]


def test_each_alert_fires_for_its_cause_and_none_does_for_a_replica_at_work(tmp_path: Path) -> None:
    assert BROKEN.keys() == BY_NAME.keys()
    tests = []
    for name, (changes, scope) in BROKEN.items():
        rule = BY_NAME[name]
        labels = {"job": "w", "severity": rule["labels"]["severity"]} | (
            {"instance": "1"} if scope == "instance" else {}
        )
        fired = {"exp_labels": labels, "exp_annotations": rule["annotations"]}
        for changed, expected in ((changes, [fired]), ({}, [])):
            asked = {"eval_time": "10m", "alertname": name, "exp_alerts": expected}
            tests.append({"interval": "15s", "input_series": series_with(changed), "alert_rule_test": [asked]})
    cases = {"rule_files": [str(ALERTS)], "evaluation_interval": "15s", "tests": tests}
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases))
    promtool("test", "rules", str(tmp_path / "cases.yaml"))
