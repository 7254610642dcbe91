-- curves.lua: loss curves from a sweep's runs/<name>/metrics.jsonl.
local host = require "host"

local curves = {}

-- One file as an array of records; lines that are no JSON objects (a torn
-- last one, say) are left out.
function curves.parse(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do
    local record = host.json.decode(line)
    if type(record) == "table" then list[#list + 1] = record end
  end
  return list
end

-- { [name] = records } for the results in `folder`; runs that left no file
-- are missing from it.
function curves.read(results, folder)
  local found = {}
  for _, result in ipairs(results) do
    local name = type(result) == "table" and result.name
    if type(name) == "string" and not name:find("[/%z]") then
      local text = host.file.read(folder .. "/runs/" .. name
        .. "/metrics.jsonl")
      if text then found[name] = curves.parse(text) end
    end
  end
  return found
end

return curves
