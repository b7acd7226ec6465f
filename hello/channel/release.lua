-- Releases the lease if the holder has it. KEYS[1] the lease; ARGV[1] the holder.

if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
