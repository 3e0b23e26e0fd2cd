"""What lies around every route: sockets, bodies, keys, ids, streams."""
