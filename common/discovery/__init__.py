"""Finding other services, and calling them."""
