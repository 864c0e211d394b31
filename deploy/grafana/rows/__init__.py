"""The rows of the dashboard, from the whole to its parts."""

from __future__ import annotations

from deploy.grafana.rows.engine import ENGINE
from deploy.grafana.rows.glance import GLANCE
from deploy.grafana.rows.knowledge import KNOWLEDGE
from deploy.grafana.rows.load import LOAD
from deploy.grafana.rows.process import PROCESS
from deploy.grafana.rows.users import USERS

ROWS = (GLANCE, USERS, LOAD, ENGINE, KNOWLEDGE, PROCESS)
