-- A trained Llama (preset=llama) for other programs: a folder that
-- transformers loads, or a GGUF file that llama.cpp loads.
--
--   llmhost experiments/export.lua [MODEL] to=FOLDER | to=FILE.gguf [key=value]
--
-- MODEL is what sample.lua takes; the newest checkpoint here.
local export = require "llm.export"
local fail = require "llm.fail"
local host = require "host"
local keys = require "llm.keys"
local saved = require "llm.saved"
local size = require "llm.size"

local o, rest = keys.read({
  { "to", "string", nil, "a folder, or a file that ends in .gguf" },
  { "dtype", "string", "f32", "how the weights are written",
    { words = { "f32", "bf16", "f16" } } },
  { "tokenizer", "string", nil,
    "tokenizer.json, when the results do not say where it is" },
}, { words = { { "MODEL",
  "a folder, or the name of a run; the newest checkpoint" } } })

local function main()
  if not o.to or o.to == "" then
    fail.raise("usage", "export: where to? to=FOLDER or to=FILE.gguf")
  end
  local s = saved.open(rest[1])
  local path = export.write(s, o.to, o)
  local file = host.file.is_file(path) and path
    or path .. "/model.safetensors"
  print(("%s: wrote %s (%s, %s)"):format(s.name, path, o.dtype,
    size.bytes(host.file.size(file))))
  return 0
end

return setmetatable({}, { __run = main })
