-- A saved Llama for other programs: a folder as Hugging Face keeps it, or a
-- GGUF file.
local fail = require "llm.fail"
local gguf = require "llm.gguf"
local gpu = require "gpu"
local host = require "host"
local llama = require "llm.llama"
local must = require("llm.metrics").must
local saved = require "llm.saved"

local export = {}

local TORCH = { f32 = "float32", bf16 = "bfloat16", f16 = "float16" }

local function json(value)
  return host.json.encode(value, { indent = 2 }) .. "\n"
end

-- --- tokenizer ---

local function tokenizer_config(c, tok, eos)
  local name = eos and eos < tok:count() and tok:token(eos)
    or host.json.null
  return host.json.ordered {
    { "tokenizer_class", "PreTrainedTokenizerFast" },
    { "model_max_length", c.seq },
    { "add_prefix_space", false },
    { "clean_up_tokenization_spaces", false },
    { "bos_token", host.json.null },
    { "eos_token", name },
    { "unk_token", host.json.null },
  }
end

local function write_tokenizer(s, tok, to, eos)
  must(tok:save(to .. "/tokenizer.json"))
  must(host.file.write(to .. "/tokenizer_config.json",
    json(tokenizer_config(s.shape, tok, eos))))
end

-- --- Hugging Face ---

-- Write the folder `to`: config.json, generation_config.json,
-- model.safetensors in `dtype`, and the tokenizer where there is one.
function export.folder(s, program, tok, to, dtype)
  local tensors, eos = {}, saved.end_of(s, tok)
  for _, t in ipairs(llama.tensors(program, s.shape)) do
    tensors[t.name] = dtype == "f32" and t.tensor or t.tensor:to(dtype)
  end
  must(host.file.mkdir(to))
  must(gpu.save(to .. "/model.safetensors", tensors, { format = "pt" }))
  must(host.file.write(to .. "/config.json", json(llama.config(s.shape,
    { dtype = TORCH[dtype], eos = eos }))))
  must(host.file.write(to .. "/generation_config.json",
    json(host.json.ordered { { "eos_token_id", eos or host.json.null } })))
  if tok then write_tokenizer(s, tok, to, eos) end
end

-- --- both ---

-- Write the description `s` (llm.saved) to a folder, or to a GGUF file when
-- `to` ends in .gguf. how: dtype "f32", "bf16" or "f16", tokenizer (a path).
-- Gives the path of what was written.
function export.write(s, to, how)
  local file = to:find "%.gguf$"
  llama.need(s.shape, file and "GGUF" or "Hugging Face's folder")
  if not file and host.file.is_file(to) then
    fail.raise("usage", "to=%s is a file; a folder's name, or one that ends "
      .. "in .gguf, is needed", to)
  end
  local path = how.tokenizer or s.tokenizer
  local tok = path and saved.open_tokenizer(s, path)
  if file and not tok then
    fail.raise("usage", "%s: a GGUF file holds the tokenizer, and it is not "
      .. "where the journal says; name it: tokenizer=PATH/tokenizer.json",
      s.folder)
  end
  local p <close> = saved.compile(s, { seq = 1, precision = "f32" })
  if file then
    gguf.write(to, s, llama.tensors(p, s.shape), tok,
      { dtype = how.dtype, eos = saved.end_of(s, tok) })
  else
    export.folder(s, p, tok, to, how.dtype)
  end
  return to
end

return export
