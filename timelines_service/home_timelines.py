"""The two statements of a home timeline."""

from sqlalchemy import Uuid, bindparam, text

# For this few followees the window is not worth it. A larger window would cost readers too much whose
# followees have not written for long.
FEW_FOLLOWEES = 100
WINDOW = 500

# A home timeline, the newest posts of many users, has no index. The obvious `username = ANY(followees)
# ORDER BY id DESC LIMIT n` lets the planner walk the primary key backwards until it has met enough of
# them: through the whole table when they have not written for long. These two have no such case.
#
# By followee: take each one's newest post (one probe of posts_newest), keep the n followees with the
# newest ones, since only they can fill the page, and of these take n posts each. The work grows with the
# number of followees, not with the table. `LIMIT (SELECT n)`, because a planner that knows n, and that most
# users have written less, may fetch and sort all posts of one who has written a hundred thousand.
BY_FOLLOWEE = text("""
    WITH active AS MATERIALIZED (
        SELECT followee.username, newest.id
        FROM unnest(CAST(:followees AS text[])) AS followee (username)
        CROSS JOIN LATERAL (
            SELECT id FROM posts
            WHERE username = followee.username AND id < :before
            ORDER BY id DESC LIMIT 1
        ) AS newest
        ORDER BY newest.id DESC LIMIT :limit
    )
    SELECT posts.id, posts.username, posts.text, posts.created_at
    FROM (
        SELECT theirs.id
        FROM active
        CROSS JOIN LATERAL (
            SELECT id FROM posts
            WHERE username = active.username AND id < :before
            ORDER BY id DESC LIMIT (SELECT :limit)
        ) AS theirs
        ORDER BY theirs.id DESC LIMIT :limit
    ) AS page
    JOIN posts ON posts.id = page.id
    ORDER BY posts.id DESC
""").bindparams(bindparam("before", type_=Uuid))

# In the window: a reader who follows many users finds a page among the newest posts of all, at a cost that
# hardly grows with their number. Less than a page in the window is no result. MATERIALIZED, because the
# planner would otherwise estimate the frequency of each of a thousand names, which takes longer than to look.
FROM_RECENT = text(f"""
    WITH recent AS MATERIALIZED (SELECT * FROM posts WHERE id < :before ORDER BY id DESC LIMIT {WINDOW})
    SELECT id, username, text, created_at FROM recent
    WHERE username = ANY (CAST(:followees AS text[]))
    ORDER BY id DESC LIMIT :limit
""").bindparams(bindparam("before", type_=Uuid))  # noqa: S608  a number of our own
