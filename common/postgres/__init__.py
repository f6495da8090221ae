"""PostgreSQL: one pool a process, one transaction a change."""
