"""The corridor: one ``Exchange`` per request, one ``Attempt`` per try. Quiet: clocks, dice and sockets come in as ports."""
