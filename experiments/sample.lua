-- Text from a trained model: a checkpoint, the newest of a run or of a folder
-- of results, or a Llama folder as Hugging Face keeps it.
--
--   llmhost experiments/sample.lua [MODEL] [prompt="Once upon"] [key=value …]
--
-- MODEL is a folder or the name of a run; the newest checkpoint here.
local host = require "host"
local keys = require "llm.keys"
local sample = require "llm.sample"
local saved = require "llm.saved"

local o, rest = keys.read({
  { "prompt", "string", "", "what the text begins with; -: standard input" },
  { "tokens", "integer", 200, "at most; the end of a text comes earlier",
    { least = 1 } },
  { "temperature", "number", .8, "0: always the most probable token",
    { least = 0, most = 1000 } },
  { "top_k", "integer", 0, "draw from the k most probable; 0: from all",
    { least = 0 } },
  { "top_p", "number", 1, "draw from the fewest that together have this "
    .. "probability", { least = 1e-9, most = 1 } },
  { "seed", "integer", 1, "another seed, another text" },
  { "context", "integer", nil,
    "tokens that the cache holds; default: what the model trained with",
    { least = 1 } },
  { "slide", "boolean", true,
    "go on when the context is full, from its later half" },
  { "tokenizer", "string", nil,
    "tokenizer.json, when the results do not say where it is" },
  { "script", "string", nil,
    "the script whose model = function built the model" },
  { "storage", "string", nil, "4-bit weights for a Llama folder",
    { words = { "f32", "nf4r" } } },
}, { words = { { "MODEL",
  "a folder, or the name of a run; the newest checkpoint" } } })

local function main()
  local s = saved.open(rest[1])
  if o.script then s.build = saved.build_of(o.script) end
  if o.prompt == "-" then o.prompt = io.read "a" end
  io.stderr:write(("%s%s, %s\n"):format(s.name, s.step
    and " after step " .. s.step or "", s.folder))
  local r = sample.run(s, o)
  io.stderr:write(("%d tokens, %.0f tokens/s; prompt %d tokens in %.2f s; %s\n")
    :format(r.tokens, r.tokens / math.max(r.seconds, 1e-9), r.prompt,
      r.prompt_seconds, sample.cache_text(r.memory, r.context)))
  return host.process.interrupted() > 0 and 130 or 0
end

return setmetatable({}, { __run = main })
