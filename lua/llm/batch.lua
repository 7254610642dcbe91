-- Which micro-batch trains: the solver (arithmetic on exact plans) and the
-- policy of the search (what is timed, and what is said of each candidate).
local matrix = require "llm.matrix"

local batch = {}

local MOST = 65536 -- sequences; no larger batch is looked for

-- Where a line through both ends crosses `limit`, strictly between them.
local function between(low, high, need_low, need_high, limit)
  local slope = (need_high - need_low) / (high - low)
  local guess = slope > 0 and low + (limit - need_low) // slope
    or (low + high) // 2
  return math.tointeger(math.max(low + 1, math.min(high - 1, guess)))
end

-- The largest b in 1 … most with need(b) <= limit; 0 when not even 1 fits.
-- `need` must not fall as b grows; it is nearly a line, so few calls do.
function batch.largest(need, limit, most)
  local low, at_low = 1, need(1)
  if at_low > limit then return 0 end
  if most == 1 or need(most) <= limit then return most end
  local high, at_high, turn = most, need(most), 0
  while high - low > 1 do
    turn = turn + 1
    local guess = turn % 4 == 0 and (low + high) // 2
      or between(low, high, at_low, at_high, limit)
    local at = need(guess)
    if at <= limit then
      low, at_low = guess, at
    else
      high, at_high = guess, at
    end
  end
  return low
end

-- The largest divisor of `sequences` whose plan, with the accumulation that
-- goes with it, is within `limit`; nil when none is, then also the least need.
-- With accumulation, the need must not fall as the divisor grows.
function batch.trained(memory, sequences, limit)
  if memory(sequences, 1) <= limit then return sequences end
  local divisors = matrix.divisors(sequences)
  local fits, fails = 0, #divisors
  while fails - fits > 1 do
    local middle = (fits + fails) // 2
    local d = divisors[middle]
    if memory(d, sequences // d) <= limit then fits = middle
    else fails = middle end
  end
  if fits > 0 then return divisors[fits] end
  return nil, memory(1, sequences)
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
  end, limit, MOST)
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
