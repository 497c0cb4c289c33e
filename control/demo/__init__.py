"""The demo: the article's applications and the launcher that plays the kubelet for them. ``python -m control.demo`` runs it.

Reading order: plan (which pods, where), kubelet (processes, probes, pod status), state (directory, lock, pid), launcher, run.
"""
