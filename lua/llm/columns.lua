-- Plain-text and Markdown tables with aligned columns.
local columns = {}

local function width_of(text) return utf8.len(text) or #text end

local function pad(text, width, left)
  local fill = (" "):rep(width - width_of(text))
  return left and text .. fill or fill .. text
end

local function widths(head, rows)
  local out = {}
  for i, word in ipairs(head) do out[i] = width_of(word) end
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      out[i] = math.max(out[i] or 0, width_of(tostring(cell)))
    end
  end
  return out
end

local function line(cells, wide, left, gap)
  local out = {}
  for i = 1, #wide do
    out[i] = pad(tostring(cells[i] or ""), wide[i], left[i])
  end
  return (table.concat(out, gap):gsub("%s+$", ""))
end

local function left_set(names)
  local set = {}
  for _, i in ipairs(names or { 1 }) do set[i] = true end
  return set
end

-- Lines of text: head, rule, rows. left = positions of left-aligned columns
-- (the first by default); gap between columns: two blanks by default.
function columns.text(head, rows, left, gap)
  local wide, set = widths(head, rows), left_set(left)
  gap = gap or "  "
  local rule = {}
  for i, w in ipairs(wide) do rule[i] = ("-"):rep(w) end
  local lines = { line(head, wide, set, gap), table.concat(rule, gap) }
  for _, row in ipairs(rows) do
    lines[#lines + 1] = line(row, wide, set, gap)
  end
  return lines
end

-- A name of at most `most` characters, of which `head` come before what is
-- left out.
local function shortened(name, most, head)
  if width_of(name) <= most then return name end
  if not utf8.len(name) then return name:sub(1, most) end
  local tail = most - 1 - head
  return name:sub(1, utf8.offset(name, head + 1) - 1) .. "…"
    .. (tail > 0 and name:sub(utf8.offset(name, -tail)) or "")
end

-- How many characters the names that are longer than `most` begin with alike.
local function alike(names, most)
  local first, count
  for _, name in ipairs(names) do
    if width_of(name) > most and utf8.len(name) then
      first = first or name
      local i = 1
      while i <= #first and first:byte(i) == name:byte(i) do i = i + 1 end
      while not utf8.len(first:sub(1, i - 1)) do i = i - 1 end
      count = math.min(count or math.huge, utf8.len(first:sub(1, i - 1)))
    end
  end
  return count or 0
end

local function with_head(names, most, head)
  local out, seen, same = {}, {}, 0
  for k, name in ipairs(names) do
    out[k] = shortened(name, most, head)
    same = same + (seen[out[k]] and 1 or 0)
    seen[out[k]] = true
  end
  return out, same
end

-- The names, shortened where they are alike, else in the middle, else
-- wherever most of them stay distinct.
local function all_shortened(names, most, longest)
  local middle, best, least = (most - 1) // 2, nil, nil
  local at = alike(names, most) - (longest - most + 1)
  if at < 0 then at = middle end
  at = math.min(at, most - 1)
  for i = 0, 2 * most do
    local head = at + (i % 2 == 0 and -1 or 1) * ((i + 1) // 2)
    if head >= 0 and head < most then
      local out, same = with_head(names, most, head)
      if not best or same < least then best, least = out, same end
      if same == 0 then break end
    end
  end
  return best
end

-- As `text`, with the first cells of rows shortened where the lines would be
-- wider than `width`, down to the width of its head.
function columns.within(width, head, rows, left, gap)
  local lines, widest, longest = columns.text(head, rows, left, gap), 0, 0
  for _, text in ipairs(lines) do widest = math.max(widest, width_of(text)) end
  if widest <= width then return lines end
  local names = {}
  for i, row in ipairs(rows) do
    names[i] = row[1]
    longest = math.max(longest, width_of(row[1]))
  end
  names = all_shortened(names, math.max(width_of(head[1]),
    longest - (widest - width)), longest)
  for i, row in ipairs(rows) do row[1] = names[i] end
  return columns.text(head, rows, left, gap)
end

local function escape(cell)
  return (tostring(cell):gsub("|", "\\|"):gsub("\n", " "))
end

-- A Markdown table as one string.
function columns.markdown(head, rows, left)
  local set, rule, lines = left_set(left), {}, {}
  for i = 1, #head do rule[i] = set[i] and "---" or "---:" end
  lines[1] = "| " .. table.concat(head, " | ") .. " |"
  lines[2] = "|" .. table.concat(rule, "|") .. "|"
  for _, row in ipairs(rows) do
    local cells = {}
    for i = 1, #head do
      cells[i] = escape(row[i] == nil and "" or row[i])
    end
    lines[#lines + 1] = "| " .. table.concat(cells, " | ") .. " |"
  end
  return table.concat(lines, "\n") .. "\n"
end

return columns
