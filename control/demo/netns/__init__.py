"""``meshctl demo --netns``: every pod in a network namespace of its own, its connections intercepted by iptables.

``layout`` (names and addresses, pure), ``network`` (namespaces made and removed), ``janitor`` (removes them whatever becomes of
the launcher), ``names`` (Services get addresses, pods' /etc/hosts know them), ``pods`` (all together), ``front`` (the cloud's
load balancer).
"""
