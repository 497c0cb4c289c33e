"""Room 4: what every request passes on its way to a cluster, in the order of ``walk.py``'s tables."""
