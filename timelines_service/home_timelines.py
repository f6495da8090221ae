"""The two statements of a home timeline."""

from timelines_service.post_query import DELETED_USERS, PostList

# For this few followees the window is not worth it. A larger window would cost readers too much whose
# followees have not written for long.
FEW_FOLLOWEES = 100
WINDOW = 500

# A post is there once: as itself if the reader follows its author, else as the oldest repost by somebody whom
# the reader follows. Only reposts are tested, so that other rows cost nothing more: posts_by_user has both
# columns. The subselects stand for EXISTS, which the planner may take as a reason to hash the whole table.
# `IS TRUE` keeps the planner from joining the earlier reposts, which are few, with all sources each time.
VISIBLE = f"""(page.repost_of IS NULL OR (
    page.original_author NOT IN (SELECT username FROM sources)
    AND page.original_author <> ALL (CAST(:hidden AS text[]))
    AND page.original_author <> ALL ({DELETED_USERS})
    AND (SELECT original.id FROM posts AS original WHERE original.id = page.repost_of) IS NOT NULL
    AND (
        SELECT earlier.id FROM posts AS earlier
        WHERE earlier.repost_of = page.repost_of AND earlier.id < page.id
            AND (earlier.username IN (SELECT username FROM sources)) IS TRUE
        LIMIT 1
    ) IS NULL
))"""  # noqa: S608  likewise
SOURCES = f"""sources AS MATERIALIZED (
    SELECT followee COLLATE "C" AS username FROM unnest(CAST(:followees AS text[])) AS followee
    WHERE followee <> ALL ({DELETED_USERS})
)"""  # noqa: S608  what it is made of stands in post_query

# A home timeline, the newest posts of many users, has no index. The obvious `username = ANY(followees)
# ORDER BY id DESC LIMIT n` lets the planner walk the primary key backwards until it has met enough of
# them: through the whole table when they have not written for long. These two have no such case.
#
# By followee: take each one's newest post (one probe of posts_by_user), keep the n followees with the
# newest ones, since only they can fill the page, and of these take n posts each. The work grows with the
# number of followees, not with the table. `LIMIT (SELECT n)`, because a planner that knows n, and that most
# users have written less, may fetch and sort all posts of one who has written a hundred thousand.
BY_FOLLOWEE = PostList(
    """
    WITH {sources}, active AS MATERIALIZED (
        SELECT sources.username, newest.id
        FROM sources
        CROSS JOIN LATERAL (
            SELECT page.id FROM posts AS page
            WHERE page.username = sources.username AND page.id {past} :cursor AND {visible}
            ORDER BY page.id {order} LIMIT 1
        ) AS newest
        ORDER BY newest.id {order} LIMIT :limit
    )
    SELECT {columns}
    FROM (
        SELECT theirs.id, active.username, theirs.repost_of
        FROM active
        CROSS JOIN LATERAL (
            SELECT page.id, page.repost_of FROM posts AS page
            WHERE page.username = active.username AND page.id {past} :cursor AND {visible}
            ORDER BY page.id {order} LIMIT (SELECT :limit)
        ) AS theirs
        ORDER BY theirs.id {order} LIMIT :limit
    ) AS page {content}
    ORDER BY page.id {order}
    """,
    sources=SOURCES,
    visible=VISIBLE,
)


def from_recent(window: int) -> PostList:
    """In the window: a page among the newest posts of all.

    A reader who follows many users finds one there, at a cost that hardly grows with their number. Less
    than a page in the window is no result. MATERIALIZED, because the planner would otherwise estimate the
    frequency of each of a thousand names, which takes longer than to look.
    """
    return PostList(
        """
        WITH {sources}, recent AS MATERIALIZED (
            SELECT id, username, repost_of, original_author FROM posts
            WHERE id {past} :cursor ORDER BY id {order} LIMIT {window}
        ), page AS MATERIALIZED (
            SELECT page.id, page.username, page.repost_of FROM recent AS page
            WHERE page.username = ANY (CAST(:followees AS text[]))
                AND page.username <> ALL ({deleted_users}) AND {visible}
            ORDER BY page.id {order} LIMIT :limit
        )
        SELECT {columns} FROM page {content} ORDER BY page.id {order}
        """,
        sources=SOURCES,
        visible=VISIBLE,
        deleted_users=DELETED_USERS,
        window=str(window),
    )


FROM_RECENT = from_recent(WINDOW)
