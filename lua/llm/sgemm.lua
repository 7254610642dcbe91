-- What a CPU's matrix products attain at a model's own shapes, and the work
-- that a training step cannot do without: the two sides of a share of sgemm.
local gpu = require "gpu"

local sgemm = {}

-- The matrices of a model: { name, shape = {out, in} }, each once. The head
-- multiplies with the embedding's table where it is tied to it.
local function matrices(model)
  local list = {}
  for _, p in ipairs(model:parameters()) do
    local head = p.name == "head.weight"
      or p.name == "embedding.weight"
    if #p.shape == 2 and (head or p.name:find "^blocks%.") then
      list[#list + 1] = { name = p.name, out = p.shape[1], inp = p.shape[2],
        muon = not head }
    end
  end
  return list
end

-- Operations of one Newton-Schulz orthogonalization, five steps, as few as
-- symmetric products take: x xᵀ and its square by halves, then (…) x.
function sgemm.newton_schulz(rows, columns)
  local r, c = math.min(rows, columns), math.max(rows, columns)
  return 5 * (3 * r * r * c + r * r * r)
end

-- The least operations of an optimizer's step over all Muon matrices.
function sgemm.update_flops(model)
  local sum = 0
  for _, m in ipairs(matrices(model)) do
    if m.muon then sum = sum + sgemm.newton_schulz(m.out, m.inp) end
  end
  return sum
end

-- The three products of each matrix for a micro-batch of `rows` tokens,
-- without repeats: { m, n, k, transpose_a =, transpose_b =, times = }.
function sgemm.products(model, rows)
  local list, at = {}, {}
  local function add(m, n, k, ta, tb)
    local key = ("%d %d %d %s %s"):format(m, n, k, ta, tb)
    if not at[key] then
      at[key] = { m, n, k, transpose_a = ta, transpose_b = tb, times = 0 }
      list[#list + 1] = at[key]
    end
    at[key].times = at[key].times + 1
  end
  for _, w in ipairs(matrices(model)) do
    add(rows, w.out, w.inp, false, true)  -- y = x wᵀ
    add(rows, w.inp, w.out, false, false) -- dx = dy w
    add(w.out, w.inp, rows, true, false)  -- dw = dyᵀ x
  end
  return list
end

-- Operations a second of all these products, each timed now.
function sgemm.rate(products)
  local flops, seconds = 0, 0
  for _, p in ipairs(products) do
    flops = flops + 2 * p[1] * p[2] * p[3] * p.times
    seconds = seconds + p.times * gpu.time_product { p[1], p[2], p[3],
      transpose_a = p.transpose_a, transpose_b = p.transpose_b, runs = 1 }
  end
  return flops / seconds
end

return sgemm
