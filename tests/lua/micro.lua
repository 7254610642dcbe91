-- A sweep small enough to run in a test: folders, text, and the program itself
-- started as a user would.
local host = require "host"

local micro = {}

-- Plain English-like text from a fixed generator, so that a tokenizer and a
-- model have something to learn.
local WORDS = { "the", "model", "reads", "a", "short", "line", "of", "text",
  "and", "learns", "what", "comes", "next", "while", "memory", "holds",
  "every", "number", "it", "needs" }

local function document(seed)
  local out = {}
  for i = 1, 400 do
    seed = (1103515245 * seed + 12345) % 2147483648
    out[i] = WORDS[seed // 65536 % #WORDS + 1] .. (i % 12 == 0 and ".\n" or "")
  end
  return table.concat(out, " ")
end

-- A fresh folder below the system's temporary one, with text/ in it.
function micro.folder(name)
  local root = (os.getenv "TMPDIR" or "/tmp") .. "/llmhost-" .. name .. "-"
    .. host.process.pid()
  host.file.remove_tree(root)
  assert(host.file.mkdir(root .. "/text"))
  for i = 1, 20 do
    assert(host.file.write(("%s/text/%02d.txt"):format(root, i),
      document(i)))
  end
  return root
end

local SCRIPT = [[
return require("llm.sweep") {
  name = "micro", profile = "nano",
  models = { { name = "m", d_model = 16, n_layers = 1, n_heads = 2,
    d_ff = 32 } },
  matrix = { %s },
  train = { %s, seq = 16, tokens_per_step = 64, eval_tokens = 64,
    evaluations = 2, checkpoint_seconds = 0, hang_seconds = 4 },
  memory = { budget = "100MB" },
  search = { candidates = 1, timed_steps = 2 },
  data = { source = "text", vocab = 300, tokens = 2000 },
  out = "out",
  %s
}
]]

-- Write sweep.lua with these matrix entries, further keys, and its length
-- ("steps = 6" by default).
function micro.script(root, matrix, more, length)
  length = not length and "steps = 6" or length == "" and "minutes = 1"
    or length
  local text = SCRIPT:format(matrix, length, more or "")
  assert(host.file.write(root .. "/sweep.lua", text))
end

-- Start `llmhost sweep.lua …` in the folder.
function micro.start(root, ...)
  local spec = { host.process.executable(), "sweep.lua", ... }
  spec.cwd, spec.stdin, spec.stdout, spec.stderr = root, "null", "pipe", "pipe"
  return assert(host.process.spawn(spec))
end

local function drain(p, out, read)
  while true do
    local line, why = read(p, 0)
    if not line then return why == "eof" end
    out[#out + 1] = line
  end
end

-- Wait for its end: status, output, errors. `watch(line)` sees each line.
function micro.finish(p, watch, seconds)
  local out, err, seen = {}, {}, 0
  local limit = host.clock() + (seconds or 60)
  while host.clock() < limit do
    host.process.poll({ p }, .05)
    drain(p, err, p.read_error_line)
    local over = drain(p, out, p.read_line)
    for i = seen + 1, #out do if watch then watch(out[i], p) end end
    seen = #out
    if over then break end
  end
  local status = p:wait(5) or {}
  drain(p, err, p.read_error_line)
  p:close()
  return status, table.concat(out, "\n"), table.concat(err, "\n")
end

function micro.run(root, ...)
  return micro.finish(micro.start(root, ...))
end

-- The decoded results of a sweep, by name.
function micro.results(root)
  local text = host.file.read(root .. "/out/experiment_results.json")
  local by_name, list = {}, text and host.json.decode(text) or {}
  for _, r in ipairs(list) do by_name[r.name] = r end
  return by_name, list
end

-- The losses of a run, step by step, as text that compares bit for bit.
function micro.losses(root, name)
  local out = {}
  for _, r in ipairs(require("llm.metrics").read(root .. "/out/runs/"
    .. name)) do
    if r.loss then
      out[#out + 1] = ("%d:%a"):format(r.step, r.loss)
    else
      out[#out + 1] = ("%d=%a"):format(r.step, r.val_loss)
    end
  end
  return table.concat(out, " ")
end

return micro
