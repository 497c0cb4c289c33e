"""Room 2: TLS. ``hello`` looks before anything is decided, ``session`` is the machine, ``wire`` its transport, ``vault`` keeps
what is secret, ``peer`` says who is on the other side. Both ``listener`` and ``upstream`` put it between transport and codec.
"""
