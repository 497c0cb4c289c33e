"""meshctl: one file per family of verbs, registered in ``__main__.FAMILIES``. Heavy imports happen inside the verbs."""
