-- Checkpoints of a run: folders step-NNNNNNNN with model.safetensors and
-- training.safetensors (written by the program) and state.json, written last:
-- without it there is no checkpoint. It holds the sizes and CRCs of the others,
-- and as its last key its own. The last two are kept.
local host = require "host"
local must = require("llm.metrics").must

local checkpoint = {}

local FILES = { "model.safetensors", "training.safetensors" }

local function folder_of(run, name) return run .. "/checkpoints/" .. name end

local function described(folder)
  local files = {}
  for _, name in ipairs(FILES) do
    local path = folder .. "/" .. name
    files[name] = { size = host.file.size(path),
      crc32 = host.file.crc32(path) }
  end
  return files
end

local function steps_in(run)
  local names = {}
  for _, name in ipairs(host.file.list(run .. "/checkpoints") or {}) do
    name = type(name) == "table" and name.name or name
    name = name:match "step%-%d+$"
    if name then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- A state's text: its last key is the CRC of the text without it.
local function sealed(state)
  local text = host.json.encode(state, { indent = 2 })
  return ('%s,\n  "crc32": "%s"\n}\n'):format(text:sub(1, -3),
    host.crc32(text))
end

-- Whether a text is what `sealed` gave.
local function unbroken(text)
  local head, crc = text:match '^(.*),\n  "crc32": "(%x+)"\n}\n$'
  return head ~= nil and host.crc32(head .. "\n}") == crc
end

-- Save `program` and the plain table `state` (with .step) as a checkpoint of
-- the run folder; older ones than the last two go. Raises on failure.
function checkpoint.save(program, run, state, name)
  local folder = folder_of(run, name or ("step-%08d"):format(state.step))
  host.file.remove_tree(folder)
  must(host.file.mkdir(folder))
  must(program:save(folder))
  state.files = described(folder)
  must(host.file.write(folder .. "/state.json", sealed(state)))
  local names = steps_in(run)
  for i = 1, #names - 2 do host.file.remove_tree(folder_of(run, names[i])) end
  return folder
end

-- The state in a checkpoint folder, or nil and what is wrong with it.
function checkpoint.verify(folder)
  local text = host.file.read(folder .. "/state.json")
  if not text then return nil, "no state.json" end
  if not unbroken(text) then return nil, "state.json is damaged (CRC)" end
  local state, message = host.json.decode(text)
  if type(state) ~= "table" or type(state.files) ~= "table" then
    return nil, "state.json: " .. (message or "not a checkpoint's")
  end
  state.crc32 = nil -- not the state's, the file's
  for _, name in ipairs(FILES) do
    local want, path = state.files[name] or {}, folder .. "/" .. name
    if host.file.size(path) ~= want.size then
      return nil, name .. " has another size than state.json says"
    elseif host.file.crc32(path) ~= want.crc32 then
      return nil, name .. " is damaged (CRC)"
    end
  end
  return state
end

-- Folder and state of the newest whole checkpoint of a run; nil when there is
-- none. `told` is called with a message for each damaged one.
function checkpoint.latest(run, told)
  local names = steps_in(run)
  for i = #names, 1, -1 do
    local folder = folder_of(run, names[i])
    local state, message = checkpoint.verify(folder)
    if state then return folder, state end
    if told then told(names[i] .. ": " .. message .. "; it is not used") end
  end
end

return checkpoint
