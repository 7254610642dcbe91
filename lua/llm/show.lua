-- How the prompt shows values and errors: scalars as print does, tables with
-- sorted keys and bounded depth and length, tensors by shape, place, range and
-- corners without fetching the rest, objects by what they are.
local docs = require "llm.docs"
local host = require "host"

local show = {}

-- Limits of one printed table; a user may change them.
show.limits = { depth = 3, items = 40, tables = 4, text = 200, edge = 3 }

local function width() return math.max(40, host.terminal.width()) end

-- --- tensors ---------------------------------------------------------------

local BLOCK = 1 << 22 -- elements of a block that is widened to f32
local SMALL = 4096    -- elements of a tensor that may be fetched whole

local function number(x)
  if math.type(x) == "integer" then return tostring(x) end
  if x ~= x then return "nan" end
  return ("%.4g"):format(x)
end

local function flat_values(t, into)
  if type(t) ~= "table" then
    into[#into + 1] = t
  else
    for _, v in ipairs(t) do flat_values(v, into) end
  end
  return into
end

-- Range of f32 values, or of a dtype the device reduces: on the device.
local function reduced(t)
  return { min = t:min():item(), mean = t:mean():item(),
    max = t:max():item() }
end

-- The same of other floats, widened block by block.
local function widened(t)
  local n = t:numel()
  local flat, sum, least, most = t:reshape { n }, 0
  for first = 1, n, BLOCK do
    local last = math.min(n, first + BLOCK - 1)
    local part = reduced(flat:slice(1, first, last):to "f32")
    sum = sum + part.mean * (last - first + 1)
    least = math.min(least or part.min, part.min)
    most = math.max(most or part.max, part.max)
  end
  return { min = least, mean = sum / n, max = most }
end

-- Of whole numbers, which no device reduces: small ones only.
local function counted(t)
  if t:numel() > SMALL then return nil end
  local values = flat_values(t:table(), {})
  local sum, least, most = 0, math.huge, -math.huge
  for _, v in ipairs(values) do
    sum, least, most = sum + v, math.min(least, v), math.max(most, v)
  end
  return { min = least, mean = sum / #values, max = most }
end

local FLOATS = { f32 = true, bf16 = true, f16 = true, e4m3 = true }

local function range(t)
  if not FLOATS[t.dtype] then return counted(t) end
  local ok, found = pcall(reduced, t)
  if not ok and t.dtype ~= "f32" then return widened(t) end
  return ok and found or error(found, 0)
end

-- first…last along dim as nested tables, or both edges when it is long: the
-- pieces to fetch, as pairs of positions.
local function edges(size, edge)
  if size <= 2 * edge + 1 then return { { 1, size } } end
  return { { 1, edge }, { size - edge + 1, size } }
end

-- Rows of cells of a matrix's corners; "…" stands for what is left out.
local function corner_cells(matrix, rows, columns, edge)
  local cells = {}
  for i, r in ipairs(edges(rows, edge)) do
    if i == 2 then cells[#cells + 1] = { "…" } end
    local part = {}
    for j, c in ipairs(edges(columns, edge)) do
      local values = matrix:slice(1, r[1], r[2]):slice(2, c[1], c[2]):table()
      for k, row in ipairs(values) do
        part[k] = part[k] or {}
        if j == 2 then table.insert(part[k], "…") end
        for _, v in ipairs(row) do table.insert(part[k], number(v)) end
      end
    end
    table.move(part, 1, #part, #cells + 1, cells)
  end
  return cells
end

local function aligned(cells)
  local wide = {}
  for _, row in ipairs(cells) do
    for i, cell in ipairs(row) do
      wide[i] = math.max(wide[i] or 0, utf8.len(cell))
    end
  end
  local lines = {}
  for k, row in ipairs(cells) do
    local out = {}
    for i, cell in ipairs(row) do
      out[i] = (" "):rep(wide[i] - utf8.len(cell)) .. cell
    end
    lines[k] = "  " .. table.concat(out, "  ")
  end
  return lines
end

local function product(list, first, last)
  local n = 1
  for i = first, last do n = n * list[i] end
  return n
end

-- The corners of the first matrix in a tensor, as lines.
local function corners(t)
  local shape = t.shape
  local rank = #shape
  if t.dtype == "u4" then return { "  4-bit codes: :table() fetches them" } end
  local columns = shape[rank]
  local rows = rank > 1 and shape[rank - 1] or 1
  local matrix = t:reshape { product(shape, 1, rank - 1), columns }
  local lines = aligned(corner_cells(matrix, rows, columns,
    show.limits.edge))
  if rank > 2 then
    table.insert(lines, 1, "  [" .. ("1, "):rep(rank - 2) .. ":, :]")
  end
  return lines
end

-- "tensor[2, 3] f32 cpu, 24 bytes", its range, its corners.
local function tensor_text(t)
  local size = require "llm.size"
  local head = ("tensor[%s] %s %s, %s"):format(table.concat(t.shape, ", "),
    t.dtype, t.device, size.bytes(t:bytes()))
  if t:numel() == 0 then return head end
  if #t.shape == 0 then return head .. ": " .. number(t:item()) end
  local r, lines = range(t), { head }
  if r then
    lines[1] = head .. ("; min %s, mean %s, max %s"):format(number(r.min),
      number(r.mean), number(r.max))
  end
  local more = corners(t)
  table.move(more, 1, #more, 2, lines)
  return table.concat(lines, "\n")
end

-- --- other objects ---------------------------------------------------------

local OBJECTS = {
  ["gpu.tensor"] = tensor_text,
  ["gpu.layer"] = function(l)
    local lines = { ("layer of %d parameters"):format(l:count()) }
    for i, p in ipairs(l:parameters()) do
      if i > show.limits.items then
        lines[i + 1] = ("  … %d more"):format(#l:parameters() - i + 1)
        break
      end
      lines[i + 1] = ("  %s [%s]"):format(p.name, table.concat(p.shape, ", "))
    end
    return table.concat(lines, "\n")
  end,
  ["gpu.program"] = function(p)
    local size, m = require "llm.size", p:memory()
    local parts = {}
    for _, name in ipairs(docs.sorted(m.by_category)) do
      if m.by_category[name] > 0 then
        parts[#parts + 1] = name .. " " .. size.bytes(m.by_category[name])
      end
    end
    return ("program of %s parameters, peak %s\n  %s"):format(
      size.count(p:count().parameters), size.bytes(m.peak),
      table.concat(parts, ", "))
  end,
}

local function object_text(value)
  local class = docs.class(value)
  local describe = OBJECTS[class]
  if describe then
    local ok, text = pcall(describe, value)
    if ok then return text end
    if tostring(text):find("interrupted", 1, true) then error(text, 0) end
  end
  return tostring(value)
end

-- --- tables ----------------------------------------------------------------

local RANK = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
  local x, y = RANK[type(a)] or 4, RANK[type(b)] or 4
  if x ~= y then return x < y end
  if x <= 2 then return a < b end
  return tostring(a) < tostring(b)
end

-- Keys beyond the array part, sorted.
local function other_keys(t, n)
  local keys = {}
  for key in next, t do
    local i = math.type(key) == "integer" and key
    if not (i and i >= 1 and i <= n) then keys[#keys + 1] = key end
  end
  table.sort(keys, before)
  return keys
end

local WORDS = {}
for word in ([[and break do else elseif end false for function goto if in
  local nil not or repeat return then true until while]]):gmatch "%a+" do
  WORDS[word] = true
end

-- Is it a name that needs no quotes as a key?
function show.is_name(text)
  return type(text) == "string" and text:find "^[%a_][%w_]*$" ~= nil
    and not WORDS[text]
end

local function quoted(text)
  local most = show.limits.text
  local cut = #text > most and text:sub(1, utf8.offset(text, 0, most + 1)
    - 1) or text
  local out = ("%q"):format(cut):gsub("\\\n", "\\n"):gsub("\r", "\\r")
    :gsub("\t", "\\t"):gsub("[\0-\31\127]", function(c)
    return ("\\x%02x"):format(c:byte())
  end)
  return out .. (#text > most and (" … %d bytes"):format(#text) or "")
end

local text_of

local function key_text(key, seen)
  if show.is_name(key) then return key .. " = " end
  return "[" .. text_of(key, seen, show.limits.depth, "") .. "] = "
end

local function leaf(value)
  local kind = type(value)
  if kind == "string" then return quoted(value) end
  if kind == "function" then
    local name = docs.name_of(value)
    return name and "function " .. name or tostring(value)
  end
  if kind == "userdata" then
    local text = tostring(value):gsub("\n.*", " …")
    return #text > 36 and text:match "^(.-): " or text
  end
  return tostring(value)
end

-- The cells of a table: array part, then other keys; bounded.
local function cells_of(t, seen, depth, indent)
  local n, most, cells = rawlen(t), show.limits.items, {}
  -- A list of tables inside a table is shown by its first ones.
  if depth > 0 and type(rawget(t, 1)) == "table" then
    most = math.min(most, show.limits.tables)
  end
  for i = 1, math.min(n, most) do
    cells[i] = text_of(rawget(t, i), seen, depth + 1, indent)
  end
  local keys = other_keys(t, n)
  for _, key in ipairs(keys) do
    if #cells >= most then break end
    cells[#cells + 1] = key_text(key, seen)
      .. text_of(rawget(t, key), seen, depth + 1, indent)
  end
  local left = n + #keys - #cells
  if left > 0 then cells[#cells + 1] = ("… %d more"):format(left) end
  return cells
end

-- Cells on one line if they fit, numbers and such in filled lines, otherwise
-- one line each.
local function laid_out(cells, indent)
  local one = "{ " .. table.concat(cells, ", ") .. " }"
  local room = width() - #indent - 8
  if not one:find "\n" and utf8.len(one) and utf8.len(one) <= room then
    return one
  end
  local lines, line = {}, ""
  for i, cell in ipairs(cells) do
    local piece = cell .. (i < #cells and "," or "")
    local alone = #piece > 12 or piece:find "\n" or piece:find "="
    if line ~= "" and (alone or #line + #piece + 1 > room) then
      lines[#lines + 1], line = line, ""
    end
    line = line == "" and piece or line .. " " .. piece
    if alone then lines[#lines + 1], line = line, "" end
  end
  if line ~= "" then lines[#lines + 1] = line end
  local inner = "\n" .. indent .. "  "
  return "{" .. inner .. table.concat(lines, inner) .. "\n" .. indent .. "}"
end

function text_of(value, seen, depth, indent)
  if type(value) ~= "table" then return leaf(value) end
  local meta = getmetatable(value)
  if type(meta) == "table" and rawget(meta, "__tostring") then
    return tostring(value)
  end
  if seen[value] then return "{ the same again }" end
  if next(value) == nil then return "{}" end
  if depth >= show.limits.depth then return "{ … }" end
  seen[value] = true
  local cells = cells_of(value, seen, depth, indent .. "  ")
  seen[value] = nil
  return laid_out(cells, indent)
end

-- --- what the prompt calls -------------------------------------------------

-- One value as text, of several lines perhaps.
function show.value(value)
  if type(value) == "string" then return value end
  if type(value) == "userdata" then return object_text(value) end
  return text_of(value, {}, 0, "")
end

-- Print what an evaluation gave: plain values on one line as print does.
function show.results(...)
  local n, plain = select("#", ...), true
  for i = 1, n do
    local kind = type((select(i, ...)))
    if kind == "table" or kind == "userdata" or kind == "function" then
      plain = false
    end
  end
  if plain then return print(...) end
  for i = 1, n do print(show.value((select(i, ...)))) end
end

-- The text of an error: its first line in red where colours are wanted.
function show.failure(text)
  local first, rest = text:match "^([^\n]*)(.*)$"
  return host.terminal.color("red", first, 2) .. rest
end

return show
