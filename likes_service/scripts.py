"""The Lua scripts of the store: each changes all that it changes at once, or nothing.

Three sorted sets show a like: the post's likers and the user's likes, by
time in microseconds, and the ranking, by count. A fourth is a transactional
outbox: the same script that records a like adds its entry there, by the time
it is due. An entry whose like stands waits for its validation; an entry
without a like was undone, and waits for the notification of its liker.
"""

# Changes nothing, but is a write, by a script, that takes memory: refused wherever a like would be.
PING = "return redis.call('ZADD', KEYS[1], 'XX', 0, '')"

LIKE = """
local likers, liked, popular, outbox = unpack(KEYS)
local post, user, at, due = unpack(ARGV)
if redis.call('ZADD', likers, 'NX', at, user) == 0 then
  return {0, redis.call('ZCARD', likers)}
end
local count = redis.call('ZCARD', likers)
redis.call('ZADD', liked, at, post)
redis.call('ZADD', popular, count, post)
redis.call('ZADD', outbox, due, post .. ' ' .. user)
return {1, count}
"""

_REMOVE = """
local function remove(likers, liked, popular, post, user)
  redis.call('ZREM', likers, user)
  redis.call('ZREM', liked, post)
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
local likers, liked, popular, outbox = unpack(KEYS)
local post, user = unpack(ARGV)
if not redis.call('ZSCORE', likers, user) then
  return {{0, redis.call('ZCARD', likers)}}
end
redis.call('ZREM', outbox, post .. ' ' .. user)
return {{1, remove(likers, liked, popular, post, user)}}
"""

UNDO = f"""
{_REMOVE}
local likers, liked, popular = unpack(KEYS)
local post, user, at = unpack(ARGV)
if redis.call('ZSCORE', likers, user) ~= at then return 0 end
remove(likers, liked, popular, post, user)
return 1
"""

PAGE = """
local limit, before = unpack(ARGV)
local first = 0
if before ~= '' then
  local rank = redis.call('ZREVRANK', KEYS[1], before)
  if not rank then return false end
  first = rank + 1
end
return redis.call('ZREVRANGE', KEYS[1], first, first + limit - 1, 'WITHSCORES')
"""

PENDING = """
local outbox, likers = unpack(KEYS)
local post, user = unpack(ARGV)
if not redis.call('ZSCORE', outbox, post .. ' ' .. user) then return false end
return redis.call('ZSCORE', likers, user) or ''
"""

COMPLETE = """
local outbox, likers = unpack(KEYS)
local post, user, at = unpack(ARGV)
if (redis.call('ZSCORE', likers, user) or '') == at then
  redis.call('ZREM', outbox, post .. ' ' .. user)
end
"""

# Half a minute after it was put, then when the like is twice as old, at last every hour: a job that is only
# waiting for its turn, however long, is not put again and again beside itself.
CLAIM_OVERDUE = """
local now, limit, likers = unpack(ARGV)
local overdue = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
for _, pair in ipairs(overdue) do
  local post, user = string.match(pair, '(%S+) (%S+)')
  local age = now - (redis.call('ZSCORE', likers .. post, user) or now)
  local pause = math.min(math.max(age, 30000000), 3600000000)
  redis.call('ZADD', KEYS[1], now + pause, pair)
end
return overdue
"""

CLAIM = """
local likers, mailed = unpack(KEYS)
local kind, user, claimant = unpack(ARGV)
if kind == 'liked' and not redis.call('ZSCORE', likers, user) then return 'unliked' end
local field = kind .. ' ' .. user
redis.call('HSETNX', mailed, field, claimant)
return redis.call('HGET', mailed, field) == claimant and 'granted' or 'mailed'
"""
