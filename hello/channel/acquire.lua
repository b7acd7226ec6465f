-- Follows high_watermark.lua. Acquires or renews the lease, and returns whether the holder has it (1 or 0), and `last`.
--
-- KEYS[3] the lease; ARGV[2] the holder, ARGV[3] the duration of the lease in milliseconds.

local lease = KEYS[3]
local holder, duration = ARGV[2], tonumber(ARGV[3])

-- A leader that could not publish anything is of no use.
local _, impossible = successor(newest_id(KEYS[1]), 0)
if impossible then return impossible end

local left = redis.call('PTTL', lease)
-- A lease that has more time left than a new one was acquired before the clock was set back, and may never expire.
if left > 0 and left <= duration and redis.call('GET', lease) ~= holder then return {0, last} end
redis.call('SET', lease, holder, 'PX', duration)
return {1, last}
