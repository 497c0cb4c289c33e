"""Where resources live: ``api`` is the contract, ``sqlite`` the embedded store, ``memory`` the one for offline work."""
