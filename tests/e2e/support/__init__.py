"""Helpers for tests of the running sidecar: real processes, real sockets, addresses of their own, nothing that sleeps to pass."""
