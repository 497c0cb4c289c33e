"""Room 6: connections to endpoints. ``pool`` judges (sans-io), ``dial`` and ``connection`` do, ``dns`` keeps DNS clusters
fresh.
"""
