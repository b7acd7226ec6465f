-- The start of each script that reads or writes the high watermark: the highest position that any connected process has
-- published or read. A Redis that was wiped, or restored from an older snapshot, has lost that position, but the
-- processes have not: each one sends the highest position that it knows, and receives the highest position of all.
--
-- KEYS[1] the stream, KEYS[2] the high watermark; ARGV[1] the highest position that the caller knows.
-- `last` is the highest position of all three afterwards.

if redis.replicate_commands then redis.replicate_commands() end  -- Redis 6: allows writes after TIME and PTTL

local MAX = 9007199254740991  -- the largest integer that Lua and JavaScript represent exactly; MAX_SAFE_INTEGER in Python
local MAX_TEXT = '9007199254740991'

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

-- Returns the position, or where readers cannot read it, the highest position before it that they can. Every position
-- with more than MAX milliseconds counts as none ('0-0'): nothing readable comes after it.
local function readable(position)
  local ms, seq = split(position)
  if ms > MAX then return '0-0' end
  return seq > MAX and string.format('%d-%d', ms, MAX) or position
end

local function raise_high_watermark(stream, key, position)
  local stored = redis.call('GET', key) or '0-0'
  local known = #stored > #MAX_TEXT and readable(stored) or stored  -- earlier versions stored what nobody can read
  -- An entry above the high watermark was added by another program, not by publish.lua.
  local foreign = redis.call('XREVRANGE', stream, MAX_TEXT .. '-' .. MAX_TEXT, '(' .. known, 'COUNT', '1')[1]
  local last = later(position, foreign and readable(foreign[1]) or known)
  if last ~= stored and last ~= '0-0' then redis.call('SET', key, last) end
  return last
end

-- Returns the first position after `position` at the time `ms`, or nil and an error if no readable position is left.
local function successor(position, ms)
  local prev_ms, prev_seq = split(position)
  if ms > prev_ms then return string.format('%d-0', ms) end
  if prev_ms <= MAX and prev_seq < MAX then return string.format('%d-%d', prev_ms, prev_seq + 1) end
  if prev_ms < MAX then return string.format('%d-0', prev_ms + 1) end
  -- Redis 8 and Valkey 9 refuse to set the id of a stream back (XSETID), even after XDEL.
  local reason = 'ERR the newest id of the stream %s is %s, which another program has added, and no message can come '
    .. 'after it, even if it is deleted: RENAME %s {%s}:old'
  return nil, redis.error_reply(string.format(reason, KEYS[1], position, KEYS[1], KEYS[1]))
end

-- Returns the highest id that the stream has ever had, of deleted entries too; '0-0' if Redis does not reply with it.
local function newest_id(stream)
  local info = redis.pcall('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
  return '0-0'
end

local last = raise_high_watermark(KEYS[1], KEYS[2], ARGV[1])
