-- Events of children as lines of the log and as the progress line.
local host = require "host"
local size = require "llm.size"

local narrate = {}

local function share(part, whole)
  return part and whole and ("%.0f %%"):format(100 * part / whole) or "?"
end

-- "blocks.*.attention.qkv.weight, …": names with their numbers starred, once.
function narrate.names(list)
  local out, seen = {}, {}
  for _, name in ipairs(list or {}) do
    local star = name:gsub("%.%d+%.", ".*.")
    if not seen[star] then seen[star], out[#out + 1] = true, star end
  end
  return table.concat(out, ", ")
end

local TELL = {}

function TELL.count(c, ev, say)
  local n = ev.count
  say(("%s: %s parameters (Muon %s, AdamW %s); quantized %s%s"):format(
    c.e.name, size.count(n.parameters), size.count(n.muon), size.count(n.adamw),
    size.count(n.quantized), n.quantized > 0
      and (" in %s"):format(narrate.names(n.quantized_names)) or ""))
end

function TELL.candidate(c, ev, say)
  local k = ev.candidate
  say(("%s: batch %d x %d: %s, %s of the budget, %s: %s"):format(c.e.name,
    k.batch, k.accumulate, size.bytes(k.bytes), size.share(k.memory_share),
    k.tokens_per_second and size.count(k.tokens_per_second) .. " tokens/s"
      or "not timed", k.verdict))
end

function TELL.decided(c, ev, say)
  local d = ev.decided
  say(("%s: trains with batch %d x %d, %d steps (%s a step by %s timed "
    .. "micro-steps); search took %s"):format(c.e.name, d.batch, d.accumulate,
    d.steps, size.seconds(d.seconds_per_step),
    tostring(d.timed_steps or "no"), size.seconds(d.search_seconds)))
end

function TELL.eval(c, ev, say)
  say(("%s: step %d: validation loss %.4f, accuracy %.1f %%, perplexity %s")
    :format(c.e.name, ev.step, ev.val_loss, 100 * (ev.val_accuracy or 0),
    ev.val_perplexity and ("%.4g"):format(ev.val_perplexity) or "?"))
end

function TELL.note(c, ev, say) say(c.e.name .. ": " .. ev.text) end

-- Tell the log of an event of child `c`; say(text, mood).
function narrate.event(c, ev, say)
  local tell = TELL[ev.event]
  if tell then tell(c, ev, say) end
end

-- The progress of a step event in pieces { text, rank }: where there is not
-- room for all, those of the highest rank go first. place = { index, count }.
function narrate.progress(c, ev, place)
  local steps = c.steps or 0
  local left = steps > 0 and ev.step > 0
    and (steps - ev.step) * ev.seconds / ev.step or nil
  local pieces = {
    { ("%d/%d %s"):format(place.index, place.count, c.e.name), 1 },
    { ("step %d/%d"):format(ev.step, steps), 1 },
    { ("loss %.3f"):format(ev.loss), 2 },
    { ("acc %.1f %%"):format(100 * (ev.accuracy or 0)), 6 },
    { "ppl " .. (ev.perplexity and ("%.0f"):format(ev.perplexity) or "?"), 7 },
    { ("lr %.2g"):format(ev.lr or 0), 8 },
    { size.count(ev.tokens_per_second) .. " tok/s", 3 },
    { ("%s %s"):format(size.bytes(ev.memory), share(ev.memory, c.budget)), 4 },
  }
  if ev.device_share then
    pieces[#pieces + 1] = { ("device %.0f %%"):format(ev.device_share), 5 }
  end
  if left then
    pieces[#pieces + 1] = { ("%s left (%s)"):format(size.seconds(left),
      host.date(host.time() + left):sub(12, 19)), 1 }
  end
  return pieces
end

-- The same before a child's first step: what it does, and for how long.
function narrate.waiting(c, place, seconds)
  return { { ("%d/%d %s"):format(place.index, place.count, c.e.name), 1 },
    { c.decided and "prepares to train" or "compiles, measures batch sizes",
      2 }, { ("%d s"):format(seconds // 1), 1 } }
end

local MOODS = { skipped = "dim", interrupted = "warn" }

-- The mood of a status word.
function narrate.mood(status)
  return status == "ok" and "good" or MOODS[status] or "bad"
end

-- The lines about a finished experiment.
function narrate.finished(name, outcome, say)
  local r = outcome.result
  if outcome.status == "skipped" then return end -- told of all together
  if outcome.status ~= "ok" then
    return say(("%s: %s: %s"):format(name, outcome.status,
      tostring(outcome.error)), narrate.mood(outcome.status))
  end
  say(("%s: ok: loss %s, validation loss %s, peak %s of %s (%s), %s of "
    .. "training, %s tokens/s%s%s"):format(name,
    r.avg_loss and ("%.4f"):format(r.avg_loss) or "?",
    r.val_loss and ("%.4f"):format(r.val_loss) or "?",
    size.bytes(r.memory.peak), size.bytes(r.memory.budget),
    share(r.memory.peak, r.memory.budget), size.seconds(r.training_seconds),
    size.count(r.tokens / r.training_seconds),
    r.cut_short and ", cut short by the clock" or "",
    (r.skipped_steps or 0) > 0 and (", %d steps skipped"):format(
      r.skipped_steps) or ""), "good")
  if r.throttled then
    say(("%s: the device lowered its clocks in %.0f %% of the samples (%s): "
      .. "its speed is not to be compared"):format(name,
      100 * r.power.throttled_share, r.power.reasons), "warn")
  end
end

return narrate
