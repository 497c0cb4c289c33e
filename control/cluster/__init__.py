"""What control does in a cluster beside serving: who leads, who calls, the authority's Secret, certificates, status."""
