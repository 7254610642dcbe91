-- Llama folders of Hugging Face (config.json, model.safetensors or its shards,
-- tokenizer.json): read for generating, evaluating and training on.
local fail = require "llm.fail"
local gpu = require "gpu"
local host = require "host"
local llama = require "llm.llama"

local import = {}

-- Whether `folder` looks like one.
function import.is(folder)
  return host.file.is_file(folder .. "/config.json")
    and (host.file.is_file(folder .. "/model.safetensors")
      or host.file.is_file(folder .. "/model.safetensors.index.json"))
end

local function read_json(path)
  local text, message = host.file.read(path, 1 << 26)
  if not text then fail.raise("io", "%s", message) end
  local value, wrong = host.json.decode(text)
  if type(value) ~= "table" then
    fail.raise("format", "%s: %s", path, wrong or "not an object")
  end
  return value
end

-- The folder's shape; raises for what is no Llama or cannot be represented.
function import.shape(folder)
  local path = folder .. "/config.json"
  if not host.file.is_file(path) then
    fail.raise("io", "%s: no config.json there; a folder as Hugging Face "
      .. "keeps a model has one, beside model.safetensors and tokenizer.json",
      folder)
  end
  return llama.shape(read_json(path), path)
end

-- The path of the folder's tokenizer.json, or nil.
function import.tokenizer(folder)
  local path = folder .. "/tokenizer.json"
  return host.file.is_file(path) and path or nil
end

-- --- tensors ---

-- The folder's safetensors files, in order.
local function files_of(folder)
  local index = folder .. "/model.safetensors.index.json"
  if host.file.is_file(folder .. "/model.safetensors")
    or not host.file.is_file(index) then
    return { "model.safetensors" }
  end
  local seen, list = {}, {}
  for _, file in pairs(read_json(index).weight_map or {}) do
    if type(file) ~= "string" or file:find "[/\\]" then
      fail.raise("format", "%s: '%s' is no name of a file beside it", index,
        tostring(file))
    end
    if not seen[file] then
      seen[file], list[#list + 1] = true, file
    end
  end
  table.sort(list)
  return list
end

local function load_all(folder)
  local all = {}
  for _, file in ipairs(files_of(folder)) do
    local tensors, message = gpu.load(folder .. "/" .. file)
    if not tensors then fail.raise("format", "%s", message) end
    for name, t in pairs(tensors) do all[name] = t end
  end
  return all
end

local function shape_text(shape)
  return "[" .. table.concat(shape, ", ") .. "]"
end

local FLOATS = { f32 = true, bf16 = true, f16 = true }

-- The folder's tensors of one parameter, as f32 in one.
local function joined(all, n, folder)
  local whole
  for _, name in ipairs(n.theirs) do
    local t = all[name]
    if not t then
      fail.raise("format", "%s: tensor '%s' is missing", folder, name)
    elseif not FLOATS[t.dtype] then
      fail.raise("format", "%s: tensor '%s' is %s; f32, bf16 and f16 can be "
        .. "read", folder, name, t.dtype)
    end
    if t.dtype ~= "f32" then t = t:to "f32" end
    whole = whole and whole:cat(t, 1) or t
    all[name] = nil
  end
  return whole
end

-- Tensors that say nothing new: a tied head stored twice, rotary tables of old
-- versions.
local function harmless(name, c)
  return name:find "rotary_emb%.inv_freq$"
    or (name == "lm_head.weight" and c.tied ~= false)
end

local function check_rest(all, c, folder)
  local rest = {}
  for name in pairs(all) do
    if not harmless(name, c) then rest[#rest + 1] = name end
  end
  table.sort(rest)
  if rest[1] then
    fail.raise("format", "%s: tensor '%s' is none of a Llama's%s", folder,
      rest[1], rest[1]:find "bias$" and " here: this program has no biases"
      or "")
  end
end

-- Put the folder's weights into `program`, a model of shape `c`.
function import.into(program, folder, c)
  local all = load_all(folder)
  for _, n in ipairs(llama.names(c)) do
    local t, want = joined(all, n, folder), program:parameter(n.name).shape
    if shape_text(t.shape) ~= shape_text(want) then
      fail.raise("format", "%s: '%s' is %s, the model needs %s", folder,
        table.concat(n.theirs, "' + '"), shape_text(t.shape),
        shape_text(want))
    end
    program:assign(n.name, t)
  end
  check_rest(all, c, folder)
end

-- --- training on ---

-- The value of a key of these on the command line, or nil.
local function asked(...)
  local text
  for _, word in ipairs(host.options.args or {}) do
    for _, key in ipairs { ... } do
      if word:sub(1, #key + 1) == key .. "=" then text = word:sub(#key + 2) end
    end
  end
  return text
end

-- What from=FOLDER on the command line of a script means for its sweep: a
-- model's row and data's keys; nil without it.
function import.requested()
  local folder = asked("from", "train.from")
  if not folder then return nil end
  local c = import.shape(folder)
  if not import.tokenizer(folder) and not asked("tokenizer",
    "data.tokenizer") then
    fail.raise("usage", "from=%s: no tokenizer.json there, and another "
      .. "tokenizer's ids would mean other words; name it: "
      .. "data.tokenizer=PATH/tokenizer.json", folder)
  end
  local row = { name = "imported" }
  for _, key in ipairs { "d_model", "n_layers", "n_heads", "n_kv_heads",
    "d_ff", "preset", "tied", "rope_base", "norm_eps" } do
    row[key] = c[key]
  end
  return { row = row, seq = c.seq,
    data = { vocab = c.vocab, tokenizer = import.tokenizer(folder) } }
end

return import
