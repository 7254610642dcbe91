-- The word somebody probably meant.

-- Damerau-Levenshtein distance (adjacent swaps count once), by rows.
local function distance(a, b)
  local before, last = {}, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      row[j] = math.min(last[j] + 1, row[j - 1] + 1,
        last[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1)
        and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before, last = last, row
  end
  return last[#b]
end

-- The nearest of the array `words` to `word`, of several as near one with the
-- same first letter; nil when none is near enough to be meant (a third of its
-- length, at least two edits).
return function(word, words)
  local best, least = nil, math.max(2, #word // 3) + 1
  for _, candidate in ipairs(words) do
    local d = distance(word, candidate)
    if candidate:byte() ~= word:byte() then d = d + .5 end
    if d < least then best, least = candidate, d end
  end
  return best
end
