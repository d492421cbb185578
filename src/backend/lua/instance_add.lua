-- Adds to slices. Follows instance_add_quick.lua, which has done the additions before ARGV[from], and
-- instance_write.lua.
-- ARGV  incarnation, lease in ms, sequence or '', then 2 for each addition: key, count of less than 2^53
-- Gives version, or 'replayed' and version, then 3 for each: new total, slice, epoch; or 'o' overflow | 'x' not
--       a number, with what was found.
if from == 4 then
  local stop = enter(ARGV[1], ARGV[2])
  if stop then return stop end
  if backlog and slow().prepare(4, 2) then return { 'again' } end
else
  -- Nobody can have died since; and to begin anew would count twice.
  INC = ARGV[1]
  read_meta()
end
if from == 4 then out[1] = version() end
begin(sequence)
if replayed then out = { 'replayed', out[1] } end
for i = from, #ARGV, 2 do
  local at = #out
  local kind, t, _, _, nt, nv, ne = write((i - 2) / 2, ARGV[i], 'a', ARGV[i + 1], '', '')
  if kind == 'y' then
    out[at + 1], out[at + 2], out[at + 3] = nt, nv, ne
  else
    out[at + 1], out[at + 2], out[at + 3] = kind, t or '', ''
  end
end
finish(sequence)
settle()
return out
