-- Follows high_watermark.lua. Appends a message and returns its position; a message whose id is known has its position
-- already. Returns nil if the holder does not have the lease.
--
-- The position is above `last`: a Redis that was wiped or restored continues above every position that a reader has seen,
-- and `prev` shows the loss to the readers that missed something.
--
-- KEYS[3] the hash of message ids and their positions (see foreign_field for other entries), KEYS[4] the lease.
-- ARGV[2] how many entries the stream keeps, ARGV[3] the holder or '', ARGV[4] to ARGV[7] the fields of the message,
-- ARGV[8] the message as JSON.

local stream, high_watermark, ids, lease = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local history, holder = tonumber(ARGV[2]), ARGV[3]
local id, text, broadcaster, sent_at, json = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local function is_error(reply) return type(reply) == 'table' and reply.err ~= nil end

-- A field of the hash for an entry of another program that has no id, or the id of a later entry. With one field per
-- entry, two lengths show whether the hash matches the stream.
local function foreign_field(position)
  return string.rep(' ', 129) .. position  -- longer than any message id (MAX_ID)
end

local function id_of(entry)
  local found
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'id' then found = entry[2][i + 1] end
  end
  return found
end

-- Makes the hash match the stream, after one of the two was restored or deleted alone, or another program has added
-- entries.
local function repair()
  local wanted, surplus, hash = {}, {}, redis.call('HGETALL', ids)
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+')) do
    local at, kept = entry[1], id_of(entry) or foreign_field(entry[1])
    if wanted[kept] then wanted[foreign_field(wanted[kept])] = wanted[kept] end
    wanted[kept] = at
  end
  for i = 1, #hash, 2 do
    local kept, at = hash[i], hash[i + 1]
    if wanted[kept] == at then wanted[kept] = nil elseif not wanted[kept] then surplus[kept] = true end
  end
  for kept, at in pairs(wanted) do redis.call('HSET', ids, kept, at) end
  for gone in pairs(surplus) do redis.call('HDEL', ids, gone) end
end

local length = redis.call('XLEN', stream)
if redis.call('HLEN', ids) ~= length then
  local _, impossible = successor(newest_id(stream), 0)
  if impossible then return impossible end  -- a publish that is refused writes nothing
  repair()
end

local known = redis.call('HGET', ids, id)
if known then
  -- A write, since WAIT counts no replica for a connection that wrote nothing: the message may not be on any.
  redis.call('SET', high_watermark, last)
  return known
end
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
for _, entry in ipairs(trimmed) do
  local old = id_of(entry)
  if not old or redis.call('HGET', ids, old) ~= entry[1] then old = foreign_field(entry[1]) end
  forgotten = forgotten + redis.call('HDEL', ids, old)
end
-- If not, the stream was restored with as many entries as the hash has ids. The next publish repairs what fails here.
if forgotten ~= #trimmed then pcall(repair) end

redis.pcall('PUBLISH', stream, json)  -- nothing depends on it: a user without rights to the channel may publish
return position
