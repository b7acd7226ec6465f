-- Follows high_watermark.lua. Appends a message and returns its position; a message whose id is known has its position
-- already. Returns nil if the holder does not have the lease.
--
-- The position is above `last`: a Redis that was wiped or restored continues above every position that a reader has seen,
-- and `prev` shows the loss to the readers that missed something.
--
-- KEYS[3] the hash of message ids and their positions, KEYS[4] the lease.
-- ARGV[2] how many entries the stream keeps, ARGV[3] the holder or '', ARGV[4] to ARGV[7] the fields of the message,
-- ARGV[8] the message as JSON.

local stream, high_watermark, ids, lease = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local history, holder = tonumber(ARGV[2]), ARGV[3]
local id, text, broadcaster, sent_at, json = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local function is_error(reply) return type(reply) == 'table' and reply.err ~= nil end

local function for_each_id(entries, visit)
  for _, entry in ipairs(entries) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'id' then visit(entry[2][i + 1], entry[1]) end
    end
  end
end

-- Makes the hash match the stream, after one of the two was restored or deleted alone.
local function repair()
  local missing, surplus, hash = {}, {}, redis.call('HGETALL', ids)
  for i = 1, #hash, 2 do surplus[hash[i]] = hash[i + 1] end
  for_each_id(redis.call('XRANGE', stream, '-', '+'), function(kept, at)
    if surplus[kept] ~= at then missing[kept] = at end
    surplus[kept] = nil
  end)
  for kept, at in pairs(missing) do redis.call('HSET', ids, kept, at) end
  for gone in pairs(surplus) do redis.call('HDEL', ids, gone) end
end

local length = redis.call('XLEN', stream)
if redis.call('HLEN', ids) ~= length then repair() end

local known = redis.call('HGET', ids, id)
if known then return known end
if holder ~= '' and redis.call('GET', lease) ~= holder then return false end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local position, impossible = successor(last, now)
if impossible then return impossible end

local excess, trimmed = length + 1 - history, {}
if excess > 0 then trimmed = redis.call('XRANGE', stream, '-', '+', 'COUNT', excess) end

-- Redis may refuse the first write of a script for any reason, such as a lack of memory, and the others only for a
-- missing permission. XADD, which readers see, comes last, and if it is refused, the writes before it are undone. SET is
-- the first: if HDEL were, Redis would accept the others without having the memory. The HDEL of no id has no effect, but
-- shows that the HSET can be undone.
local function append()
  redis.call('SET', high_watermark, position)
  local reply = redis.pcall('HDEL', ids, '')
  if not is_error(reply) then reply = redis.pcall('HSET', ids, id, position) end
  if not is_error(reply) then
    reply = redis.pcall('XADD', stream, 'MAXLEN', '=', ARGV[2], position, 'id', id, 'text', text,
      'broadcaster', broadcaster, 'sent_at', sent_at, 'prev', last)
    if is_error(reply) then redis.call('HDEL', ids, id) end
  end
  if is_error(reply) then redis.call('SET', high_watermark, last) end
  return reply
end

local added = append()
if is_error(added) and (string.find(added.err, 'equal or smaller') or string.find(added.err, 'exhausted')) then
  -- Above `last` is an entry of another program that was deleted again, or that readers skip: Redis remembers its id.
  position, impossible = successor(newest_id(stream), now)
  if impossible then return impossible end
  added = append()
end
if is_error(added) then return added end

local forgotten = 0
for_each_id(trimmed, function(old) forgotten = forgotten + redis.call('HDEL', ids, old) end)
-- If not, the stream was restored with as many entries as the hash has ids. The next publish repairs what fails here.
if forgotten ~= #trimmed then pcall(repair) end

redis.pcall('PUBLISH', stream, json)  -- nothing depends on it: a user without rights to the channel may publish
return position
