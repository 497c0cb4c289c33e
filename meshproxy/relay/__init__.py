"""The relay, quiet: two connections joined below HTTP. ``relay`` is the walk of one, ``line`` the way to its endpoint."""
