"""A reverse proxy; `gateway.py` says what it is used for."""
