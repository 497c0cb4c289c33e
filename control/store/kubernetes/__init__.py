"""The cluster as the store: what its API server knows, mirrored here and followed."""
