-- The same bits whatever the thread count: a decoder trains three steps in
-- processes of 1 to 4 threads, plain and 4-bit, with OpenBLAS's own choice of
-- kernels and with those of another processor.
local check = require "check"
local host = require "host"

local program = [[
local gpu = require "gpu"
local nn = gpu.nn
local V, C, F, B, T = 517, 96, 200, 3, 70
local e = nn.embedding { V, C, name = "embedding" }
local function block()
  return nn.sequential {
    nn.residual { nn.rmsnorm { C }, nn.attention { C, heads = 6, kv_heads = 2,
      rope = true, dropout = .1, name = "attention" }, nn.dropout { .1 } },
    nn.residual { nn.rmsnorm { C }, nn.linear { C, F, name = "mlp.up" },
      nn.silu {}, nn.dropout { .1 }, nn.linear { F, C, name = "mlp.down" } } }
end
local model = nn.sequential { e, nn.sequential { name = "blocks", block(),
  block() }, nn.rmsnorm { C }, nn.head { tied = e } }
local p = gpu.compile(model, { batch = B, seq = T, seed = 5,
  quantize = FORMAT, optimizer = gpu.optim.groups {
    { match = "blocks.*.weight", gpu.optim.muon {} }, { gpu.optim.adamw {} },
    clip = 1 } })
local x, y = { dtype = "i32" }, { dtype = "i32" }
for i = 1, B do
  x[i], y[i] = {}, {}
  for j = 1, T do x[i][j], y[i][j] = i * j * 31 % V, i * j * 57 % V end
end
x, y = gpu.tensor(x), gpu.tensor(y)
local words = {}
for step = 1, 3 do
  local r = p:step(x, y, step)
  words[#words + 1] = ("%a %a"):format(r.loss, r.grad_norm)
end
local w = p:parameter "blocks.1.mlp.up.weight"
words[#words + 1] = ("%a"):format((w * w):sum():item())
print(table.concat(words, " "))
]]

local function run(format, threads, core)
  local code = program:gsub("FORMAT", format)
  local p <close> = assert(host.process.spawn { host.process.executable(),
    "-e", code, stdout = "pipe",
    env = { LLMHOST_THREADS = tostring(threads), OPENBLAS_CORETYPE = core } })
  return assert(p:read_line(120))
end

for _, format in ipairs { "nil", '"nf4r"' } do
  for _, core in ipairs { "", "HASWELL" } do
    local name = ("%s weights, %s kernels: the same bits on 1 to 4 threads")
      :format(format == "nil" and "f32" or "nf4r",
        core == "" and "this processor's" or core)
    check.case(name, function()
      local kernels = core ~= "" and core or nil
      local want = run(format, 1, kernels)
      check.truthy(#want > 60, want)
      for threads = 2, 4 do
        check.equal(run(format, threads, kernels), want, threads .. " threads")
      end
    end)
  end
end

check.done()
