-- The names of the instance-aware counters of a space; the beginning of each of their scripts.
-- KEYS[1]  <P>, what all names of the space begin with, and no name itself (below)
-- KEYS[2]  <P>-, no name either. While a cluster moves the slot, no node runs a script that declares two keys
--          which it does not have both: so none runs on a half of the space.
-- KEYS[3]  in a lane: the records of the lanes (see guard.lua). Then the last of ARGV are the sequence, the lane,
--          and '1' if an earlier attempt may have arrived, followed as in guard.lua.
-- KEYS[4]  in a lane: the shape of the space (see shape.lua)
-- The names:
--   <P>meta         hash: shape (layout and shards); born (twice the time of creation, in us); epoch (the latest);
--                  floor (no key has one below; 0 until a clear); base and former (that of the keys which know none, now and before
--                  the last turn); deaths (the number of the latest, from the time of creation in us on); verify
--                  (the death from which on no key may hold a slice of somebody who is not joined); cursor (how far
--                  that is looked after); dead (there while <P>dead is not empty); last (incarnation); due (no
--                  lease ends before, in ms); seen (the time of the latest join or heartbeat, in ms); age (how long
--                  the space was in use, in ms); turned (the age at the last turn); absence (how long claims are
--                  kept for, in ms); tombs (1 if <P>tombs may be there, 2 if <P>tombs:old may be, too)
--   <P>leases       zset: joined incarnation -> its lease does not end before, in ms; ':' -> +inf, so that a lost
--                  zset is noticed
--   <P>index        hash: KEY -> epoch, of the keys that have a hash <P>k:<KEY>; so a lost one is noticed
--   <P>lease:<inc>  string: the length of a lease, in ms; expires in its last millisecond
--   <P>quiet        string: the floor; there only while <P>dead is
--                  empty, until the first lease may end
--   <P>dead         zset: incarnation, cleared index "g<n>", or "v" (all keys are to be looked through) -> number
--                  of its death, until swept
--   <P>names        hash: "i:<id>" or "n:<name>" -> incarnation; ':' -> 1, so that a lost hash is noticed
--   <P>gone         hash: id -> the age of the space when it was swept; ':' -> that when the hash was made
--   <P>inst:<inc>   hash: id, name, first, lease (ms), seq and refused (guard), late (its claims are refused)
--   <P>v:<inc>      string: how many operations the incarnation has done, and 1; so a lost one is noticed
--   <P>keys:<inc>   set: the counters of which the incarnation has a slice; ':', so that a lost set is noticed
--   <P>k:<KEY>      hash: t (total), e (epoch), c (deaths collected), s (t is clamped), <inc> -> slice,
--                  o<inc> -> epoch and value of a claim from before born that is part of the slice
--   <P>tombs        hash: KEY -> epoch, of keys without a slice whose epoch is not the base; ':' -> 1, so that a
--                  lost hash is noticed
--   <P>tombs:old    hash: those that are from before the last turn
-- A turn comes each <absence> of the space's age. It drops the old tombs, makes the others old, and gives keys that
-- know no epoch a new one. So a claim from before a forgotten change names an epoch that no key has any more,
-- however long its instance lived on.
-- Epochs of changes are odd, those of a store's beginning even.
-- Counts are decimal text: Lua's numbers are exact below 2^53 only.
local P, call, try = KEYS[1], redis.call, redis.pcall
local META = P .. 'meta'
-- Whether this operation has changed a counter, and whether it has given one a new epoch.
local wrote, replaced = false, false
-- The sequence before this batch, once that of the batch is claimed.
local claimed

-- In a lane: who it is, its record before this operation, the age to record, and whether the operation is claimed.
local lane_resent, lane_id, lane_sequence, lane_held, lane_age, lane_claimed
if KEYS[3] then
  lane_resent, lane_id, lane_sequence = table.remove(ARGV), table.remove(ARGV), table.remove(ARGV)
end

-- What a script may have to do once it has begun to write. A user who may do a part of it only would leave a
-- batch half done, and a total that is not the sum of its slices. Before Redis 7 there is no asking.
local function denied()
  if not redis.acl_check_cmd then return end
  local needed = {
    'HSET', 'HSETNX', 'HGET', 'HMGET', 'HDEL', 'HINCRBY', 'HLEN', 'HEXISTS', 'HKEYS', 'HGETALL', 'HRANDFIELD',
    'HSCAN', 'SADD', 'SREM', 'SPOP', 'SISMEMBER', 'SCARD', 'UNLINK', 'DEL', 'RENAME', 'EXISTS', 'SET', 'INCR',
    'ZADD', 'ZREM', 'ZRANGE', 'ZRANGEBYSCORE', 'ZCARD', 'ZSCORE', 'PTTL', 'TIME',
  }
  for i = 1, #needed do
    -- What is a key for one command is a value for another.
    if not redis.acl_check_cmd(needed[i], META, META, META) then
      return { err = 'NOPERM an instance-aware counter needs ' .. needed[i] .. ' on ' .. P .. '*' }
    end
  end
end
