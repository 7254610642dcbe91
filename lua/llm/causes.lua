-- Which part of a memory saving came from which cause: by category, and by
-- technique where a model ran both alone and together.
local columns = require "llm.columns"
local compare = require "llm.compare"
local size = require "llm.size"

local function mb(bytes) return ("%.1f"):format(bytes / 1e6) end

local function cause_rows(models)
  local rows = {}
  for _, m in ipairs(models) do
    for _, v in ipairs(m.variants) do
      local causes = v ~= m.baseline and compare.causes(v, m.baseline)
      if causes then
        local row = { m.model, v.variant, mb(causes.total) }
        for _, c in ipairs(compare.CATEGORIES) do
          row[#row + 1] = mb(causes[c])
        end
        rows[#rows + 1] = row
      end
    end
  end
  return rows
end

-- What GQA alone saved, and what 4-bit weights save on top of it.
local function technique_lines(models, out)
  for _, m in ipairs(models) do
    local both, gqa = compare.find(m, "gqafp4"), compare.find(m, "gqa")
    local a = both and compare.causes(both, m.baseline)
    local b = gqa and compare.causes(gqa, m.baseline)
    if a and b then
      out:line("- %s: of the %s MB saved by both, GQA alone gives %s MB, "
        .. "4-bit storage the other %s MB", m.model, mb(a.total),
        mb(b.total), mb(a.total - b.total))
    end
  end
end

local function plain_lines(models, out)
  for _, m in ipairs(models) do
    local r = m.baseline.all[1]
    local plain = r.memory_stats.plain_at_common_batch_gb
    local own = r.memory_stats.memory_at_common_batch_gb
    if plain and own then
      out:line("- %s: a plain trainer (whole logits, nothing made again) "
        .. "would need %.3f GB, predicted; this baseline takes %.3f GB "
        .. "(%s)", m.model, plain, own, size.change(own / plain - 1))
    end
  end
end

-- The report's section on causes. out: line(format, …), add(text).
return function(models, out)
  local rows = cause_rows(models)
  if #rows == 0 then return end
  out:line("## Savings by cause")
  out:line("")
  out:line("MB saved against the own baseline at the common micro-batch, "
    .. "from exact plans (negative: more).")
  out:line("")
  out:add(columns.markdown({ "model", "variant", "total", "weights",
    "gradients", "optimizer", "activations", "scratch", "data" }, rows,
    { 1, 2 }))
  out:line("")
  technique_lines(models, out)
  plain_lines(models, out)
  out:line("")
end
