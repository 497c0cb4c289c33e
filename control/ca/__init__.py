"""The mesh's root of trust: ``authority`` issues certificates, ``tokens`` says who a caller is."""
