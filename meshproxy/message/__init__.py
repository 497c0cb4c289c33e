"""The vocabulary of a request in flight, shared by every room on the hot path. No behaviour beyond small accessors."""
