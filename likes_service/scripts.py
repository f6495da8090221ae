"""The Lua scripts of the store: each changes all that it changes at once, or nothing.

Three sorted sets show a like: the post's likers and the user's likes, by
time in microseconds, and the ranking, by count. A fourth is a transactional
outbox: the same script that records a like adds its entry there, by the time
it is due. An entry whose like stands waits for its validation; an entry
without a like was undone, and waits for the notification of its liker. A fifth
is the outbox of unlikes: each waits for its event, with the time of that. An
undone like leaves its time for a while, so that it is still a cursor.

In a cluster, the user's likes are in another slot. Then `liked` is not among
the keys of a script, and LIST or UNLIST follows in that slot. Both may come
twice, late and in any order: the time of the like decides.

What is deleted elsewhere goes in steps: Redis does nothing else meanwhile.
"""

from likes_service.keys import CHANGED, COPY

# Changes nothing, but is a write, by a script, that takes memory: refused wherever a like would be.
PING = "return redis.call('ZADD', KEYS[1], 'XX', 0, '')"
UNDONE_SECONDS = 3600
# Before every script that changes something in a single Redis, or says what is left to do: key_copy.py says
# what for.
REFUSE_MOVED = f"""
local copy = redis.call('GET', '{COPY}')
if copy == 'moved' then return redis.error_reply('LIKESMOVED') end
"""
NOTE_CHANGES = f"""
{REFUSE_MOVED}
if copy then redis.call('SADD', '{CHANGED}', unpack(KEYS)) end
"""
# Longer than a mail is deferred.
DELETED_SECONDS = 5 * 24 * 3600

LIKE = """
local likers, popular, outbox, undone, liked, deleted_users = unpack(KEYS)
local post, user, at, due = unpack(ARGV)
if deleted_users and redis.call('SISMEMBER', deleted_users, user) == 1 then return false end
if redis.call('ZSCORE', likers, user) then
  return {0, redis.call('ZCARD', likers)}
end
-- Later than all likes of both lists, whatever the clock of the caller says: a client that has read a list
-- up to its newest like finds this one after it. Later than the unlike before it, too.
at = math.max(at, (redis.call('GET', undone) or 0) + 2)
for _, list in ipairs({likers, liked}) do
  local newest = redis.call('ZREVRANGE', list, 0, 0, 'WITHSCORES')[2]
  at = math.max(at, (newest or 0) + 1)
end
redis.call('ZADD', likers, at, user)
local count = redis.call('ZCARD', likers)
if liked then redis.call('ZADD', liked, at, post) end
redis.call('ZADD', popular, count, post)
redis.call('ZADD', outbox, due, post .. ' ' .. user)
return {1, count, string.format('%.0f', at)}
"""

_REMOVE = f"""
local function remove(likers, popular, undone, liked, post, user)
  redis.call('SET', undone, redis.call('ZSCORE', likers, user), 'EX', {UNDONE_SECONDS})
  redis.call('ZREM', likers, user)
  if liked then redis.call('ZREM', liked, post) end
  local count = redis.call('ZCARD', likers)
  if count > 0 then
    redis.call('ZADD', popular, count, post)
  else
    redis.call('ZREM', popular, post)
  end
  return count
end
"""

UNLIKE = f"""
{_REMOVE}
local likers, popular, undone, outbox, unlikes, liked = unpack(KEYS)
local post, user, due = unpack(ARGV)
local liked_at = redis.call('ZSCORE', likers, user)
if not liked_at then
  return {{0, redis.call('ZCARD', likers)}}
end
redis.call('ZREM', outbox, post .. ' ' .. user)
-- Later than its like, whatever any clock says: so the two are told apart in whatever order they are told.
local at = string.format('%.0f', liked_at + 1)
redis.call('ZADD', unlikes, due, post .. ' ' .. user .. ' ' .. at)
return {{1, remove(likers, popular, undone, liked, post, user), at}}
"""

# Its entry stays in the outbox: so long is known which like it was.
UNDO = f"""
{_REMOVE}
local likers, popular, undone, liked = unpack(KEYS)
local post, user, at = unpack(ARGV)
if redis.call('ZSCORE', likers, user) ~= at then return 0 end
remove(likers, popular, undone, liked, post, user)
redis.call('EXPIRE', undone, {DELETED_SECONDS})
return 1
"""

# Some likes of a deleted post. It stays known as deleted, so that no mail that waits goes out.
DELETE_POST = f"""
local likers, popular, mailed, outbox, deleted = unpack(KEYS)
local post = ARGV[1]
local users = (#ARGV - 1) / 2
redis.call('SET', deleted, 1, 'EX', {DELETED_SECONDS})
redis.call('ZREM', popular, post)
for number = 1, users do
  local user, at = ARGV[number * 2], ARGV[number * 2 + 1]
  if redis.call('ZSCORE', likers, user) == at then
    redis.call('SET', KEYS[5 + number], at, 'EX', {UNDONE_SECONDS})
    redis.call('ZREM', likers, user)
    redis.call('ZREM', outbox, post .. ' ' .. user)
    redis.call('HDEL', mailed, 'liked ' .. user)
    local liked = KEYS[5 + users + number]
    if liked then redis.call('ZREM', liked, post) end
  end
end
"""

# A deleted user likes nothing from now on: a token may be accepted a moment longer.
DELETE_USER = "redis.call('SADD', KEYS[1], ARGV[1])"

# One like of a deleted user.
FORGET = f"""
{_REMOVE}
local likers, popular, outbox, undone, mailed, liked = unpack(KEYS)
local post, user = unpack(ARGV)
redis.call('ZREM', outbox, post .. ' ' .. user)
redis.call('HDEL', mailed, 'liked ' .. user, 'taken_back ' .. user)
if redis.call('ZSCORE', likers, user) then
  remove(likers, popular, undone, liked, post, user)
elseif liked then
  redis.call('ZREM', liked, post)
end
"""

# The claims of a deleted user about one post.
FORGET_MAILS = "redis.call('HDEL', KEYS[1], 'liked ' .. ARGV[1], 'taken_back ' .. ARGV[1])"

# The time of the newest of a user's likes; nothing for a user who is deleted.
NEWEST = """
local liked, deleted = unpack(KEYS)
if redis.call('EXISTS', deleted) == 1 then return false end
return redis.call('ZREVRANGE', liked, 0, 0, 'WITHSCORES')[2] or '0'
"""

# Adds a like to the user's list, unless it was undone since. Returns nothing for a user who is deleted.
LIST = """
local liked, undone, deleted = unpack(KEYS)
local post, at = unpack(ARGV)
if redis.call('EXISTS', deleted) == 1 then return false end
if tonumber(redis.call('GET', undone) or 0) < tonumber(at) then redis.call('ZADD', liked, 'GT', at, post) end
return 1
"""

# Takes a like out of the user's list, and every earlier one of that post.
UNLIST = f"""
local liked, undone = unpack(KEYS)
local post, at = unpack(ARGV)
at = tonumber(at)
local listed = tonumber(redis.call('ZSCORE', liked, post) or 0)
if listed <= at then redis.call('ZREM', liked, post) end
if tonumber(redis.call('GET', undone) or 0) < at then
  redis.call('SET', undone, string.format('%.0f', at), 'EX', {UNDONE_SECONDS})
end
"""


_FIRST_BELOW = """
-- How many members stand above this score and member, or right there: the rank of the next one.
local function first_below(list, score, member)
  local first = redis.call('ZCOUNT', list, '(' .. score, '+inf')
  local last = redis.call('ZCOUNT', list, score, '+inf')
  while first < last do
    local middle = math.floor((first + last) / 2)
    if redis.call('ZREVRANGE', list, middle, middle)[1] >= member then
      first = middle + 1
    else
      last = middle
    end
  end
  return first
end
"""

# The members next to a cursor, highest score first; or the cursor, when it was never on the list. `seen` is
# the score that `after` had, or else `before`, when the link was made; '' without one.
PAGE = f"""
{_FIRST_BELOW}
local list, before_undone, after_undone = unpack(KEYS)
local limit, before, after, seen = unpack(ARGV)

-- How many members stand above this one, and whether it is there itself: 1 or 0.
local function place(member, undone, seen)
  if seen ~= '' then
    local itself = tonumber(redis.call('ZSCORE', list, member) or -1) == tonumber(seen) and 1 or 0
    return first_below(list, seen, member) - itself, itself
  end
  local above = redis.call('ZREVRANK', list, member)
  if above then return above, 1 end
  local score = undone and redis.call('GET', undone)
  if score then return redis.call('ZCOUNT', list, '(' .. score, '+inf'), 0 end
end

local first = 0
if before ~= '' then
  local above, itself = place(before, before_undone, after == '' and seen or '')
  if not above then return before end
  first = above + itself
end
local last = first + limit - 1
if after ~= '' then
  local above = place(after, after_undone, seen)
  if not above then return after end
  last = above - 1
  first = math.max(first, above - limit)
end
if last < first then return {{}} end
return redis.call('ZREVRANGE', list, first, last, 'WITHSCORES')
"""

# The members below this score and member, which is one of this ranking or of another bucket's.
BELOW = f"""
{_FIRST_BELOW}
local ranking = KEYS[1]
local limit, score, member = unpack(ARGV)
local first = first_below(ranking, score, member)
return redis.call('ZREVRANGE', ranking, first, first + limit - 1, 'WITHSCORES')
"""

# Of each post, the number of its likers, and whether this user is one of them: 1 or 0.
COUNTS = """
local counts = {}
for _, likers in ipairs(KEYS) do
  table.insert(counts, redis.call('ZCARD', likers))
  table.insert(counts, redis.call('ZSCORE', likers, ARGV[1]) and 1 or 0)
end
return counts
"""

# Of a pending like, since when it stands and when one was that is undone, each '' if there is none.
PENDING = """
local outbox, likers, undone = unpack(KEYS)
local post, user = unpack(ARGV)
if not redis.call('ZSCORE', outbox, post .. ' ' .. user) then return false end
return {redis.call('ZSCORE', likers, user) or '', redis.call('GET', undone) or ''}
"""

COMPLETE = """
local outbox, likers = unpack(KEYS)
local post, user, at = unpack(ARGV)
if (redis.call('ZSCORE', likers, user) or '') == at then
  redis.call('ZREM', outbox, post .. ' ' .. user)
end
"""

COMPLETE_UNLIKE = "redis.call('ZREM', KEYS[1], ARGV[1])"

# Half a minute after it was put, then when the like is twice as old, at last every hour: a job that is only
# waiting for its turn, however long, is not put again and again beside itself.
CLAIM_OVERDUE = """
local now, limit, likers = unpack(ARGV)
local overdue = {}
for _, outbox in ipairs(KEYS) do
  for _, entry in ipairs(redis.call('ZRANGE', outbox, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)) do
    local post, user, unliked_at = string.match(entry, '(%S+) (%S+) ?(%S*)')
    local since = tonumber(unliked_at) or redis.call('ZSCORE', likers .. post, user) or now
    local pause = math.min(math.max(now - since, 30000000), 3600000000)
    redis.call('ZADD', outbox, now + pause, entry)
    table.insert(overdue, entry)
  end
end
return overdue
"""

CLAIM = """
local likers, mailed, deleted, deleted_users = unpack(KEYS)
local kind, user, claimant = unpack(ARGV)
if deleted_users and redis.call('SISMEMBER', deleted_users, user) == 1 then return 'unliked' end
local stands = redis.call('ZSCORE', likers, user) and redis.call('EXISTS', deleted) == 0
if kind == 'liked' and not stands then return 'unliked' end
local field = kind .. ' ' .. user
redis.call('HSETNX', mailed, field, claimant)
return redis.call('HGET', mailed, field) == claimant and 'granted' or 'mailed'
"""

# Of a post that was copied.
RANK = """
local likers, popular = unpack(KEYS)
local count = redis.call('ZCARD', likers)
if count > 0 then redis.call('ZADD', popular, count, ARGV[1]) else redis.call('ZREM', popular, ARGV[1]) end
"""

RELEASE = "redis.call('HDEL', KEYS[1], ARGV[1])"
