"""What sidecars said of the calls of the last hour, and the pictures made of it (room ``history``)."""
