"""`python -m deploy.grafana`: writes the dashboard, and its panels' part of docs/monitoring.md, from deploy/grafana/rows."""

from __future__ import annotations

from deploy.grafana import dashboard, page


def main() -> None:
    dashboard.FILE.write_text(dashboard.text())
    page.FILE.write_text(page.text(page.FILE.read_text()))


if __name__ == "__main__":
    main()
