"""The HTTP side: routes, bodies, answers."""
