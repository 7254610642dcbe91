-- Text from a trained model: a checkpoint, the newest of a run or of a folder
-- of results, or a Llama folder as Hugging Face keeps it.
--
--   llmhost experiments/sample.lua [MODEL] [key=value …]
--     MODEL               a folder, or the name of a run; the newest checkpoint
--     prompt="Once"       what the text begins with; -: standard input
--     tokens=200          at most; the end of a text comes earlier
--     temperature=0.8     0: always the most probable token
--     top_k=0  top_p=1    draw from the most probable alone; 0 and 1: from all
--     seed=1              another seed, another text
--     context=            tokens the cache holds; what the model trained with
--     slide=true          go on when the context is full, from its later half
--     tokenizer=  script= where the tokenizer, the model's function are, when
--                         the folder of results does not say
--     storage=nf4r        a Llama folder with 4-bit weights
local host = require "host"
local sample = require "llm.sample"
local saved = require "llm.saved"
local words = require "llm.words"

local OPTIONS = {
  { "prompt", "string", "" }, { "tokens", "integer", 200, 1 },
  { "temperature", "number", .8, 0 }, { "top_k", "integer", 0, 0 },
  { "top_p", "number", 1, 0 }, { "seed", "integer", 1 },
  { "context", "integer", nil, 1 }, { "slide", "boolean", true },
  { "tokenizer", "string" }, { "script", "string" },
  { "storage", "string", nil, { "f32", "nf4r" } },
}

local function main()
  local o, rest = words.read("sample", OPTIONS, 1)
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
