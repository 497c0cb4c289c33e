"""Room 1: accepting. ``downstream`` is one client connection, ``accept`` the listening sockets, ``drain`` their end."""
