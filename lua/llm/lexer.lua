-- Lua text as tokens, also when it stops in the middle of a string or of a
-- comment, as the line of a prompt does.
local lexer = {}

local function long_bracket(text, at)
  local level = text:match("^%[(=*)%[", at)
  return level and { open = at + #level + 2, close = "]" .. level .. "]" }
end

-- The end of a quoted string that begins at `at`, or nil when it has none.
local function quoted_end(text, at)
  local quote, i = text:sub(at, at), at + 1
  while i <= #text do
    local c = text:sub(i, i)
    if c == "\\" then
      i = i + 1
    elseif c == quote then
      return i
    elseif c == "\n" then
      return nil
    end
    i = i + 1
  end
end

-- A comment at `at`: the position after it; nil when it is open at the end.
local function skip_comment(text, at)
  local long = long_bracket(text, at + 2)
  local _, to = text:find(long and long.close or "\n", at + 2, true)
  return to and to + 1
end

-- One string token at `at`, or nil and what is open there.
local function string_token(text, at)
  local long = long_bracket(text, at)
  if long then
    local from, to = text:find(long.close, long.open, true)
    if not to then
      return nil, { kind = "string", text = text:sub(long.open),
        quote = long.close }
    end
    return { kind = "string", text = "string", to = to,
      value = text:sub(long.open, from - 1) }
  end
  local to = quoted_end(text, at)
  if not to then
    return nil, { kind = "string", text = text:sub(at + 1),
      quote = text:sub(at, at) }
  end
  return { kind = "string", text = "string", to = to,
    value = text:sub(at + 1, to - 1) }
end

local PLAIN = { { "name", "^[%a_][%w_]*" }, { "number", "^%.?%d[%w.]*" },
  { "op", "^%.%.+" }, { "op", "^[=~<>]=" }, { "op", "^." } }

local function plain_token(text, at)
  for _, kind in ipairs(PLAIN) do
    local from, to = text:find(kind[2], at)
    if from then
      return { kind = kind[1], text = text:sub(from, to), to = to }
    end
  end
end

-- The tokens { kind = name | number | string | op, text, to = last position,
-- value = of a string }, and what is open at the end: { kind = "string", text =
-- so far, quote } or { kind = "comment" } or nil.
function lexer.tokens(text)
  local list, at = {}, 1
  while true do
    at = text:find("%S", at)
    if not at then return list, nil end
    if text:find("^%-%-", at) then
      at = skip_comment(text, at)
      if not at then return list, { kind = "comment" } end
    else
      local token, open
      if text:find("^[\"']", at) or text:find("^%[=*%[", at) then
        token, open = string_token(text, at)
        if open then return list, open end
      else
        token = plain_token(text, at)
      end
      list[#list + 1] = token
      at = token.to + 1
    end
  end
end

return lexer
