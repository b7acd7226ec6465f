-- The start of each script that reads or writes the high watermark: the highest position that any connected process has
-- published or read. A Redis that was wiped, or restored from an older snapshot, has lost that position, but the
-- processes have not: each one sends the highest position that it knows, and receives the highest position of all.
--
-- KEYS[1] the stream, KEYS[2] the high watermark; ARGV[1] the highest position that the caller knows.
-- `last` is the highest position of all three afterwards.

if redis.replicate_commands then redis.replicate_commands() end  -- Redis 6: allows writes after TIME and PTTL

local function split(position)
  local ms, seq = string.match(position, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end

local function later(one, other)
  if one == other or one == '0-0' then return other end  -- the usual case: there is nothing to split
  local ms, seq = split(one)
  local other_ms, other_seq = split(other)
  if ms > other_ms or (ms == other_ms and seq > other_seq) then return one end
  return other
end

local function raise_high_watermark(stream, key, position)
  local known = redis.call('GET', key) or '0-0'
  -- An entry above the high watermark was added by another program, not by publish.lua.
  local foreign = redis.call('XREVRANGE', stream, '+', '(' .. known, 'COUNT', '1')[1]
  local last = later(position, foreign and foreign[1] or known)
  if last ~= known then redis.call('SET', key, last) end
  return last
end

local last = raise_high_watermark(KEYS[1], KEYS[2], ARGV[1])
