-- Which micro-batch trains: the solver (arithmetic on exact plans) and the
-- policy of the search (what is timed, and what is said of each candidate).
local matrix = require "llm.matrix"

local batch = {}

-- The largest b in 1 … most with need(b) <= limit; 0 when not even 1 fits.
-- `need` must not fall as b grows.
function batch.largest(need, limit, most)
  local fits, fails = 0, 1
  while fails <= most and need(fails) <= limit do
    fits, fails = fails, fails * 2
  end
  fails = math.min(fails, most + 1)
  while fails - fits > 1 do
    local middle = (fits + fails) // 2
    if need(middle) <= limit then fits = middle else fails = middle end
  end
  return fits
end

-- The largest divisor of `sequences` whose plan, with the accumulation that
-- goes with it, is within `limit`; nil when none is, then also the least need.
function batch.trained(memory, sequences, limit)
  local divisors, least = matrix.divisors(sequences), nil
  for i = #divisors, 1, -1 do
    local need = memory(divisors[i], sequences // divisors[i])
    if need <= limit then return divisors[i] end
    least = math.min(least or need, need)
  end
  return nil, least
end

-- Everything arithmetic says about an experiment's batch. memory(b, a) gives
-- peak bytes; t is e.train; limit = fraction x budget. Gives batch (nil when
-- nothing fits), accumulate, largest, limit, least.
function batch.solve(memory, sequences, pinned, limit)
  local out = { limit = limit, sequences = sequences }
  if pinned ~= "auto" then
    local need = memory(pinned, sequences // pinned)
    if need <= limit then out.batch = pinned else out.least = need end
  else
    out.batch, out.least = batch.trained(memory, sequences, limit)
  end
  out.accumulate = out.batch and sequences // out.batch
  out.largest = batch.largest(function(b)
    return memory(b, b < sequences and 2 or 1)
  end, limit, 1 << 20)
  return out
end

-- Smaller divisors worth timing beside `trained`: at most `count`, each about
-- a quarter of the one before.
function batch.candidates(sequences, trained, count)
  local list, divisors = {}, matrix.divisors(sequences)
  local most = trained / 4
  for i = #divisors, 1, -1 do
    if #list >= count then break end
    if divisors[i] <= most then
      list[#list + 1] = divisors[i]
      most = divisors[i] / 4
    end
  end
  return list
end

-- How many micro-steps of `each` seconds to time: `want`, unless they would
-- take more than `seconds`; at least 2, or 1 when even one takes that long.
function batch.timed_steps(want, each, seconds)
  local least = each > seconds and 1 or 2
  return math.max(least, math.min(want, math.floor(seconds / each)))
end

-- A word for every candidate, and the fastest: the smallest batch within 1 %
-- of the best rate. candidates: { batch, tokens_per_second or nil, … }.
function batch.judge(candidates, trained)
  local best
  for _, c in ipairs(candidates) do
    local rate = c.tokens_per_second
    if rate and not (best and best >= rate) then best = rate end
  end
  local fastest
  for _, c in ipairs(candidates) do
    local near = best and c.tokens_per_second
      and c.tokens_per_second >= .99 * best
    if near and not (fastest and fastest <= c.batch) then
      fastest = c.batch
    end
  end
  for _, c in ipairs(candidates) do
    c.verdict = c.verdict or (c.batch == trained and "trains")
      or (c.batch == fastest and "fastest")
      or (c.tokens_per_second and "fits" or "fits, not timed")
  end
  return fastest
end

return batch
