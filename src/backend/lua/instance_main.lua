-- Opens the function that each script's own part is the body of; instance_end.lua closes and runs it.
local function main()
