"""What is observed of a process: the request id, the trace, the log."""
