-- What makes two sweeps the same sweep: the configuration's values and the
-- text of every Lua file loaded.
local host = require "host"
local schema = require "llm.schema"

local fingerprint = {}

-- Keys that may change between a start and its continuation.
local FREE = { out = true, only = true, ["train.hang_seconds"] = true,
  ["train.checkpoint_seconds"] = true, ["data.cache"] = true,
  ["train.tensorboard"] = true,
  description = true, notes = true }

-- Exact, in as few digits as that takes.
local function float_text(v)
  for digits = 15, 16 do
    local text = ("%%.%dg"):format(digits):format(v)
    if tonumber(text) == v then return text end
  end
  return ("%.17g"):format(v)
end

local function text_of(v)
  if type(v) == "table" then return "{" .. table.concat(v, ",") .. "}" end
  if math.type(v) == "float" then return float_text(v) end
  return tostring(v)
end

local function lines_of(values, prefix, out)
  for _, field in ipairs(schema.fields) do
    local v = values[field.path]
    if v ~= nil and not FREE[field.path] then
      out[#out + 1] = prefix .. field.path .. " = " .. text_of(v)
    end
  end
end

-- The configuration as lines "train.minutes = 30", in a fixed order.
function fingerprint.lines(config, device)
  local out = { "device = " .. device }
  lines_of(config.values, "", out)
  for _, list in ipairs { "models", "matrix" } do
    for i, row in ipairs(config[list]) do
      local prefix = list .. "." .. row.name .. "."
      out[#out + 1] = ("%s.%d = %s"):format(list, i, row.name)
      lines_of(row.values, prefix, out)
    end
  end
  return out
end

local function add_file(files, name, path)
  local text = path and host.file.read(path)
  if text then files[name] = host.fnv1a64(text) end
end

-- { name = hash } of the script and of every Lua module loaded from a file.
function fingerprint.files()
  local files = {}
  add_file(files, "script", host.options.script)
  for name in pairs(package.loaded) do
    local path = package.searchpath(name, package.path)
    add_file(files, name, path)
  end
  return files
end

local function set_of(lines)
  local set = {}
  for _, line in ipairs(lines) do set[line] = true end
  return set
end

-- Lines "- before" and "+ now" in which two configurations differ, and the
-- names of files that differ.
function fingerprint.diff(before, now)
  local out, old, new = {}, set_of(before.config), set_of(now.config)
  for _, line in ipairs(before.config) do
    if not new[line] then out[#out + 1] = "- " .. line end
  end
  for _, line in ipairs(now.config) do
    if not old[line] then out[#out + 1] = "+ " .. line end
  end
  local names, all = {}, {}
  for name in pairs(before.files) do all[name] = true end
  for name in pairs(now.files) do all[name] = true end
  for name in pairs(all) do
    if before.files[name] ~= now.files[name] then names[#names + 1] = name end
  end
  table.sort(names)
  return out, names
end

return fingerprint
