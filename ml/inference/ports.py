"""Whether a server can listen on a port, before it loads anything; imports nothing heavy."""

from __future__ import annotations

import socket


def not_free(host: str, port: int) -> str:
    """Return why nothing can listen on a port.

    Args:
        host: address to listen on.
        port: 1 to 65535.

    Returns:
        The system's reason, such as `Address already in use`; empty if the port is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as found:
        # A server that has just ended does not block its port.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""
