-- A trained Llama (preset=llama) for other programs: a folder that
-- transformers loads, or a GGUF file that llama.cpp loads.
--
--   llmhost experiments/export.lua [MODEL] to=FOLDER | to=FILE.gguf [key=value]
--     MODEL        as sample.lua takes it; the newest checkpoint
--     dtype=f32    f32, bf16 or f16: how the weights are written
--     tokenizer=   where tokenizer.json is, when the results do not say
local export = require "llm.export"
local host = require "host"
local saved = require "llm.saved"
local size = require "llm.size"
local words = require "llm.words"

local OPTIONS = {
  { "to", "string" }, { "tokenizer", "string" },
  { "dtype", "string", "f32", { "f32", "bf16", "f16" } },
}

local function main()
  local o, rest = words.read("export", OPTIONS, 1)
  if not o.to or o.to == "" then
    host.raise("usage", "export: where to? to=FOLDER or to=FILE.gguf")
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
