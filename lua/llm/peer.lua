-- The benchmark's peer, tests/torch_twin.py, as a process: prepared (compiled,
-- warmed up), then timed when it is its turn.
local host = require "host"

local peer = {}
peer.__index = peer

-- Settings of the peer by name: arguments of torch_twin.py. From `graphs` on
-- the stream between blocks is bf16, as ours is on a GPU, not plain autocast's
-- f32: on an H200 that was faster by 2.5 %.
peer.settings = {
  eager = {},
  compile = { "--compile" },
  graphs = { "--compile", "--residual", "bf16", "--mode",
    "reduce-overhead" },
  autotune = { "--compile", "--residual", "bf16", "--mode",
    "max-autotune-no-cudagraphs" },
  chunked = { "--compile", "--loss", "chunked" },
  cudnn = { "--compile", "--residual", "bf16", "--attention", "cudnn" },
  stream = { "--compile", "--residual", "bf16" },
}

local function python() return os.getenv "LLMHOST_PYTHON" or "python3" end

local SHAPE = { "d_model", "n_layers", "n_heads", "d_ff" }

local function arguments(c, setting, device)
  local argv = { python(), host.options.root .. "/tests/torch_twin.py",
    "--json", "--gate", "--device", device:match "^%a+" }
  local function add(name, value)
    argv[#argv + 1] = "--" .. name
    argv[#argv + 1] = tostring(value)
  end
  for _, key in ipairs(SHAPE) do add(key, c.row[key]) end
  add("kv_heads", c.row.n_kv_heads or c.row.n_heads)
  for _, key in ipairs { "vocab", "batch", "seq", "accumulate", "steps",
    "warmup", "dropout" } do
    add(key, c[key])
  end
  return table.move(peer.settings[setting], 1, #peer.settings[setting],
    #argv + 1, argv)
end

-- Start it for a configuration (bench.measure's) and a setting; nil and why
-- when that cannot be.
function peer.start(c, setting, device)
  local spec = arguments(c, setting, device)
  if not host.file.exists(spec[2]) then
    return nil, "tests/torch_twin.py is part of the sources only"
  end
  spec.stdin, spec.stdout, spec.stderr = "pipe", "pipe", "pipe"
  local index = device:match ":(%d+)$"
  spec.env = index and { CUDA_VISIBLE_DEVICES = index } or nil
  local p, message = host.process.spawn(spec)
  if not p then return nil, tostring(message) end
  return setmetatable({ p = p, setting = setting, began = host.clock(),
    errors = {} }, peer)
end

-- The next line of its output; nil at its end or after `seconds`.
function peer:line(seconds)
  local limit = host.clock() + seconds
  while host.clock() < limit do
    local text, why = self.p:read_line(.2)
    local said = self.p:read_error_line(0)
    while said do
      self.last = said ~= "" and said or self.last
      said = self.p:read_error_line(0)
    end
    if text then return text end
    if why == "eof" then return nil end
  end
end

local function failed(self, what)
  self.p:kill "KILL"
  self.p:wait(10)
  self.p:close()
  return nil, ("%s: %s"):format(what, self.last or "no word of why")
end

-- Wait until it is compiled and warmed up; true, or nil and why not.
function peer:ready(seconds)
  local text = self:line(seconds)
  while text and text ~= "ready" do text = self:line(seconds) end
  if not text then return failed(self, "did not get ready") end
  self.prepared_seconds = host.clock() - self.began
  return true
end

-- Its turn: the decoded result of torch_twin.py, or nil and why not.
function peer:time(seconds)
  self.p:write "go\n"
  local text = self:line(seconds)
  local result = text and host.json.decode(text)
  if type(result) ~= "table" then return failed(self, "gave no result") end
  self.p:wait(30)
  self.p:close()
  result.setting, result.prepared_seconds = self.setting,
    self.prepared_seconds
  return result
end

return peer
