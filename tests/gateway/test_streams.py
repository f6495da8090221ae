"""Streams of events through the gateway: passed on at once, ended in time."""
