"""The Kubernetes mutating webhook that puts the sidecar into pods, and the same for files (``meshctl kube-inject``).

In flow order: ``server`` (socket, certificate, settings that change) > ``app`` (HTTP) > ``review`` (AdmissionReview in and out)
> ``decide`` (whether) and ``pod`` (how) > ``template`` (what is put in). Everything below ``app`` is quiet.
"""
