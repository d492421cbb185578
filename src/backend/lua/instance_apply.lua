-- Changes keys and slices. Follows instance_write.lua.
-- ARGV  incarnation, lease in ms, sequence or '', then 7 for each write:
--       key, change (see there), count (0 for a removal), condition, operand; for 'w' the bounds, else '' twice
-- Gives 'ok', version, '1' if replayed, then 7 for each write: 'y' written | 'n' condition failed |
--       'o' overflow | 'x' not a number, with what was found; old total, slice, epoch; new ones.
local stop = enter(ARGV[1], ARGV[2])
if stop then return stop end
if backlog and slow().prepare(4, 7) then return { 'again' } end

begin(ARGV[3])
local out, at = { 'ok', version(), replayed and '1' or '0' }, 3
for i = 4, #ARGV, 7 do
  out[at + 1], out[at + 2], out[at + 3], out[at + 4], out[at + 5], out[at + 6], out[at + 7] =
    write((i + 3) / 7, unpack(ARGV, i, i + 6))
  at = at + 7
end
finish(ARGV[3])
settle()
return out
