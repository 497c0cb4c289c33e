"""The Kubernetes mutating webhook that puts the sidecar into pods. Empty so far: it comes with the Kubernetes issue."""
