"""What other tools are given: scrape configuration and rules for Prometheus, dashboards for Grafana, and words for the rest.

Room: control/tools. Data that ships with the package (``prometheus/``, ``grafana/``), and ``boards/``, which the dashboards are
made from. Nothing here is asked while the mesh runs.
"""
