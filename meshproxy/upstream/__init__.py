"""Room 6: connections to endpoints. ``pool`` judges (sans-io), ``dial`` and ``connection`` do, ``dns`` keeps DNS clusters
fresh. In TLS: ``plan`` says how an endpoint is spoken to, ``secure`` whom we believe there, ``secured`` does it, ``names`` keeps
connections for one host from another's requests.
"""
