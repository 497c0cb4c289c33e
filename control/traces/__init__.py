"""Traces that sidecars send: decoded (``decode``), kept (``store``) and found again; the vocabulary is ``span``."""
