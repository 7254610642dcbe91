-- Models on disk: a checkpoint of a run, or a Llama folder of Hugging Face;
-- found by path or by name, described, and compiled with their weights.
local checkpoint = require "llm.checkpoint"
local device = require "llm.device"
local fail = require "llm.fail"
local gpu = require "gpu"
local host = require "host"
local import = require "llm.import"
local model = require "llm.model"
local state = require "llm.state"

local saved = {}

-- --- finding ---

local HINT = "train one first: llmhost experiments/train.lua"

local function parent(path) return path:match "^(.*)/[^/]+$" or "." end

local function leaf(path) return path:match "([^/]+)$" end

-- The newest of these state.json files' folders; nil for none.
local function newest(states)
  local best, at
  for _, path in ipairs(states or {}) do
    local time = host.file.mtime(path)
    if time and (not at or time > at) then best, at = parent(path), time end
  end
  return best
end

-- The newest whole checkpoint of the newest run under these patterns of run
-- folders.
local function newest_of(pattern)
  local folder = newest(host.file.glob(pattern
    .. "/checkpoints/step-*/state.json"))
  return folder and checkpoint.latest(parent(parent(folder)), function(text)
    io.stderr:write(text, "\n")
  end) or folder
end

local function no_checkpoint(where)
  fail.raise("usage", "%s: no checkpoint there; a run writes its first one "
    .. "after train.checkpoint_seconds and at its end", where)
end

-- What a word means: the checkpoint's or model's folder. A word is a
-- checkpoint, a run's folder, a folder of results, a Llama folder, or the
-- name of a run of any folder of results here; nil: the newest checkpoint.
function saved.find(word)
  local file = host.file
  if not word then
    return newest_of "*/runs/*" or fail.raise("usage", "no checkpoint below "
      .. "this folder; %s", HINT)
  end
  local path = #word > 1 and word:gsub("/+$", "") or word
  if file.exists(path .. "/state.json") or import.is(path) then return path end
  if file.exists(path .. "/checkpoints") then
    return newest_of(path) or no_checkpoint(path)
  elseif file.exists(path .. "/journal.jsonl") then
    return newest_of(path .. "/runs/*") or no_checkpoint(path)
  elseif file.exists(path) then
    fail.raise("usage", "%s: neither a checkpoint (state.json), nor a run, nor "
      .. "a folder of results (journal.jsonl), nor a Llama (config.json and "
      .. "model.safetensors)", path)
  end
  local name = path:match "^[%w._+-]+$"
  return name and newest_of("*/runs/" .. name) or fail.raise("usage",
    "%s: there is no such folder, and no run of that name below this one "
    .. "has a checkpoint; %s", word, HINT)
end

-- --- describing ---

local function read_json(path)
  local text, message = host.file.read(path)
  if not text then
    fail.raise("io", "%s: what the model is stands there, but %s", path,
      tostring(message))
  end
  local value, wrong = host.json.decode(text)
  if type(value) ~= "table" then
    fail.raise("format", "%s: %s", path, wrong or "not an object")
  end
  return state.strip(value)
end

-- A file that the journal of the folder `results` names; also where the results
-- were moved together with their cache. nil when it is gone.
local function named(results, path)
  if not path then return nil end
  for _, p in ipairs { path, parent(results) .. "/" .. path } do
    if host.file.is_file(p) then return p end
  end
end

-- Tokenizer and held-out tokens of a run, where they are still there.
local function data_of(results)
  local s = state.read(results .. "/journal.jsonl")
  local d = s and s.data or {}
  return named(results, d.tokenizer),
    named(results, d.validation and d.validation.path)
end

local function open_checkpoint(folder)
  local s, wrong = checkpoint.verify(folder)
  if not s then
    fail.raise("format", "%s: %s; a checkpoint of another step may be whole",
      folder, wrong)
  end
  local run = parent(parent(folder))
  local config = read_json(run .. "/config.json")
  local tokenizer, validation = data_of(parent(parent(run)))
  return { kind = "checkpoint", folder = folder, name = config.name,
    step = s.step, shape = model.complete(config.shape),
    storage = config.shape.storage, tokenizer = tokenizer,
    validation = validation }
end

-- A word as a description: { kind, folder, name, step, shape, storage,
-- tokenizer, validation (paths or nil) }. Raises what is wrong, and with what.
function saved.open(word)
  local folder = saved.find(word)
  if host.file.exists(folder .. "/state.json") then
    return open_checkpoint(folder)
  end
  return { kind = "llama", folder = folder, name = leaf(folder),
    shape = import.shape(folder), storage = "f32",
    tokenizer = import.tokenizer(folder) }
end

-- The `model` function of a script that returns a sweep.
function saved.build_of(script)
  local args = host.options.args
  host.options.args = {}
  local ok, sweep = pcall(dofile, script)
  host.options.args = args
  if not ok then fail.raise("usage", "script=%s: %s", script, tostring(sweep))
  end
  if type(sweep) ~= "table" or type(sweep.build) ~= "function" then
    fail.raise("usage", "script=%s returns no sweep with a model = function",
      script)
  end
  return sweep.build
end

-- --- compiling ---

local function load(p, s)
  if s.kind == "llama" then return import.into(p, s.folder, s.shape) end
  local ok, message = p:load(s.folder)
  if not ok then
    fail.raise("world", "%s%s", message, s.build and "" or "; a model "
      .. "that a script builds itself needs script=THE SCRIPT")
  end
end

-- A program of the model with its weights, without an optimizer. how: seq,
-- batch, precision, storage ("nf4r": 4-bit weights where they are not).
function saved.compile(s, how)
  local name = device.name()
  if device.backend(name) ~= "cpu" then gpu.device(name) end
  local storage = how.storage or s.storage
  if s.kind == "checkpoint" and storage ~= s.storage then
    fail.raise("usage", "%s: its weights are %s; storage=%s is for a Llama "
      .. "folder", s.folder, s.storage, storage)
  end
  local p = gpu.compile((s.build or model.transformer)(s.shape), {
    batch = how.batch or 1, seq = how.seq or s.shape.seq,
    precision = how.precision, quantize = storage ~= "f32" and storage or nil })
  load(p, s)
  return p
end

-- The tokenizer of a description; raises when there is none.
function saved.open_tokenizer(s, path)
  path = path or s.tokenizer
  if not path then
    fail.raise("usage", "%s: its tokenizer is not where the journal says; name "
      .. "it: tokenizer=PATH/tokenizer.json", s.folder)
  end
  local tok, message = host.text.tokenizer { file = path }
  return tok or fail.raise("format", "%s", message)
end

-- The id that ends a text: what the model's files say, else <|endoftext|>'s.
function saved.end_of(s, tok)
  if s.kind == "llama" then
    local config = read_json(s.folder .. "/config.json")
    local id = config.eos_token_id
    if type(id) == "table" then id = id[1] end
    if math.tointeger(id) then return math.tointeger(id) end
  end
  return tok and tok:special "<|endoftext|>"
end

return saved
