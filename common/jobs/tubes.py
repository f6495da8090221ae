"""The names of tubes that one service fills and another empties."""


def event_tube(service: str) -> str:
    """The tube of all events that a service applies."""
    return f"events.{service}"
