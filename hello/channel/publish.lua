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

local known = redis.call('HGET', ids, id)
if known then return known end
if holder ~= '' and redis.call('GET', lease) ~= holder then return false end

local prev_ms, prev_seq = split(last)
local time = redis.call('TIME')
local ms, seq = time[1] * 1000 + math.floor(time[2] / 1000), 0
if ms <= prev_ms then ms, seq = prev_ms, prev_seq + 1 end
local position = string.format('%d-%d', ms, seq)

local length, trimmed = redis.call('XLEN', stream) + 1, {}
local excess = length - history
if excess > 0 then trimmed = redis.call('XRANGE', stream, '-', '+', 'COUNT', excess) end

-- XADD is the first write that readers see, and Redis may refuse it (out of memory, read-only). Once Redis has accepted
-- one write, it lets the script finish.
local function add(at)
  return redis.pcall('XADD', stream, 'MAXLEN', '=', ARGV[2], at, 'id', id, 'text', text,
    'broadcaster', broadcaster, 'sent_at', sent_at, 'prev', last)
end
local added = add(position)
if type(added) == 'table' and string.find(added.err, 'equal or smaller') then
  added = add('*')  -- above an entry of another program that was deleted again: only Redis remembers its position
end
if type(added) == 'table' then return added end
position = added
redis.call('SET', high_watermark, position)
redis.call('HSET', ids, id, position)

local function for_each_id(entries, visit)
  for _, entry in ipairs(entries) do
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'id' then visit(entry[2][i + 1], entry[1]) end
    end
  end
end
for_each_id(trimmed, function(old) redis.call('HDEL', ids, old) end)
if redis.call('HLEN', ids) ~= math.min(length, history) then  -- the stream or the hash was restored or deleted alone
  redis.call('DEL', ids)
  for_each_id(redis.call('XRANGE', stream, '-', '+'), function(kept, at) redis.call('HSET', ids, kept, at) end)
end
redis.call('PUBLISH', stream, json)
return position
