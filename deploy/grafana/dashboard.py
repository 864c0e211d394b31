"""The rows as Grafana's JSON: its classic dashboard, schema 42; knows nothing of what a panel is about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.grafana.panels import Panel, Query, Row
from deploy.grafana.rows import ROWS

FILE = Path(__file__).parent / "dashboards/hermes2.json"
SCHEMA = 42
COLUMNS = 24
HEIGHTS = {"series": 8, "number": 4, "states": 8, "names": 4}
KINDS = {"series": "timeseries", "number": "stat", "states": "state-timeline", "names": "stat"}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
INSTANCES = 'instance=~"$instance"'
UP, DOWN = ("up", "green"), ("down", "red")


def text() -> str:
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def dashboard() -> dict[str, Any]:
    return {
        "uid": "hermes2",
        "title": "Hermes-2",
        "description": "What the service does, and why it is slow. docs/monitoring.md explains each panel and alert.",
        "tags": ["hermes2"],
        "schemaVersion": SCHEMA,
        "timezone": "browser",
        "editable": True,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [datasource_variable(), instance_variable()]},
        "annotations": {"list": [alert_annotation()]},
        "panels": list(placed()),
    }


def placed() -> Iterator[dict[str, Any]]:
    """Every row's head and panels, from left to right, each with its number and its place."""
    number, y = 0, 0
    for row in ROWS:
        number += 1
        yield row_head(number, y, row)
        y, x, height = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                y, x, height = y + height, 0, 0
            height = max(height, HEIGHTS[panel.kind])
            number += 1
            yield panel_body(panel) | {"id": number, "gridPos": place(x, y, panel.width, HEIGHTS[panel.kind])}
            x += panel.width
        y += height


def place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def row_head(number: int, y: int, row: Row) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "collapsed": False,
        "gridPos": place(0, y, COLUMNS, 1),
        "panels": [],
    }


def panel_body(panel: Panel) -> dict[str, Any]:
    return {
        "type": KINDS[panel.kind],
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "targets": [target(i, each, instant=panel.kind == "names") for i, each in enumerate(panel.queries)],
        "fieldConfig": {"defaults": field(panel), "overrides": overrides(panel)},
        "options": options(panel),
    }


def target(position: int, query: Query, *, instant: bool) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + position),
        "datasource": SOURCE,
        "expr": query.expression.replace("@", INSTANCES),
        "legendFormat": query.legend,
        "instant": instant,
        "range": not instant,
    }


def field(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.kind == "series":
        defaults |= {"min": 0, "custom": lines(panel), "color": {"mode": "palette-classic"}}
        if panel.most is not None:
            defaults["max"] = panel.most
    elif panel.kind == "number":
        colors = {"green": None, "orange": panel.warn, "red": panel.alarm}
        steps = [{"value": at, "color": color} for color, at in colors.items() if color == "green" or at is not None]
        defaults |= {
            "color": {"mode": "thresholds"},
            "thresholds": {"mode": "absolute", "steps": steps},
            "noValue": "none",
        }
    elif panel.kind == "states":
        mapping = {
            str(value): {"text": text, "color": color, "index": value} for value, (text, color) in enumerate((DOWN, UP))
        }
        defaults |= {"color": {"mode": "thresholds"}, "mappings": [{"type": "value", "options": mapping}]}
    return defaults


def lines(panel: Panel) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
    }


def overrides(panel: Panel) -> list[dict[str, Any]]:
    """A budget is a dashed line of its own colour, whatever else is drawn."""
    if not any(query.legend == "budget" for query in panel.queries):
        return []
    style = {"fill": "dash", "dash": [10, 10]}
    properties = [
        {"id": "custom.lineStyle", "value": style},
        {"id": "custom.fillOpacity", "value": 0},
        {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}},
    ]
    return [{"matcher": {"id": "byName", "options": "budget"}, "properties": properties}]


def options(panel: Panel) -> dict[str, Any]:
    if panel.kind in ("number", "names"):
        last = {"values": False, "calcs": ["lastNotNull"], "fields": ""}
        by_name = panel.kind == "names"
        return {
            "reduceOptions": last,
            "textMode": "name" if by_name else "value",
            "colorMode": "none" if by_name else "background",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        }
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    tooltip = {"mode": "multi", "sort": "desc"}
    if panel.kind == "states":
        return {"legend": legend, "tooltip": tooltip, "showValue": "never", "mergeValues": True, "rowHeight": 0.9}
    return {"legend": legend, "tooltip": tooltip}


def datasource_variable() -> dict[str, Any]:
    return {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "hide": 0}


def instance_variable() -> dict[str, Any]:
    """Frontends; all of them, unless the viewer chooses."""
    query = "label_values(hermes2_build_info, instance)"
    return {
        "type": "query",
        "name": "instance",
        "label": "Instance",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "instances"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def alert_annotation() -> dict[str, Any]:
    """A mark on every panel for the time in which something critical fired."""
    return {
        "name": "Critical alerts",
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Hermes2.*", alertstate="firing", severity="critical"}',
        "titleFormat": "{{alertname}}",
    }
