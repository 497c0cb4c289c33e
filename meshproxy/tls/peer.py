"""Room 2, TLS."""
