"""Deletions of many rows, a batch at a time: no lock is held for long, and no other request waits."""

from sqlalchemy import TextClause, text


def delete_batch(table: str, condition: str, returned: str = "") -> TextClause:
    """Delete at most `limit` of the rows that meet a condition, which may order them."""
    return text(f"""
        DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT :limit))
        {returned and f"RETURNING {returned}"}
    """)  # noqa: S608  names of our own
