"""The contract between control and proxy: the proxy defines what it can obey, control writes it. Imports only msgspec."""
