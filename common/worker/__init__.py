"""What a worker process is made of, besides its loop: it answers on a port, and is registered."""
