"""Speaking to a Kubernetes-shaped API as a client: where it is (kubeconfig) and what its errors mean."""
