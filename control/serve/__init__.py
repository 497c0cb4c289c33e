"""What control says to the world: configuration streams for sidecars (``stream``), an API for people (``mesh_api``, ``kube``)."""
