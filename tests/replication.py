"""How far a replica of Redis is."""

import redis


def is_replicated(master: redis.Redis) -> bool:
    """Whether its replica says that it has all there is. WAIT would ask for its own connection's writes."""
    state = master.info("replication")
    return bool(state["slave0"]["offset"] == state["master_repl_offset"])
