"""What the launcher does in a kubelet's place: run containers as processes, probe them, keep their pod's status."""
