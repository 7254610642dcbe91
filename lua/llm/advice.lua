-- What the figures of a run suggest; computed from memory share, device share
-- and speed of light alone. `largest`: the micro-batch is the largest of the
-- step's that fits, as the search picks it.
return function(figures)
  local out = {}
  local memory, device = figures.memory_share, figures.device_share
  if memory and memory < 70 then
    out[#out + 1] = ("memory %.0f %% of the budget: a larger model%s"):format(
      memory, figures.largest and " would fit, no larger micro-batch of this "
      .. "step" or " or micro-batch would fit")
  elseif memory and memory > 95 then
    out[#out + 1] = ("memory %.0f %% of the budget: a smaller micro-batch or "
      .. "recompute = \"mlp\" leaves room"):format(memory)
  end
  if device and device < 80 then
    out[#out + 1] = ("device busy %.0f %% of the time: a larger micro-batch "
      .. "would fill it"):format(device)
  end
  local light = figures.speed_of_light
  if light and light < 50 then
    out[#out + 1] = ("%.0f %% of the attainable speed: see p:profile() for "
      .. "where the rest goes"):format(light)
  end
  return out
end
