-- host.json: what goes through unchanged, what is refused, and where.
local check = require "check"
local host = require "host"
local json = host.json

local function refused(text, message)
  local value, why, code = json.decode(text)
  check.equal(value, nil, text)
  check.equal(why, message, text)
  check.equal(code, "format")
end

check.case("integers and floats keep their kind", function()
  for _, n in ipairs { 0, -1, 9007199254740993, math.maxinteger,
    math.mininteger } do
    check.equal(json.encode(n), string.format("%d", n))
    local back = json.decode(json.encode(n))
    check.equal(math.type(back), "integer")
    check.equal(back, n)
  end
  for _, x in ipairs { 0.5, 1.0, -2.0, 0.1, 1 / 3, 5e-324, 1.7e308, 1e15,
    123456.789, 2 ^ 53 + 0.0 } do
    local back = json.decode(json.encode(x))
    check.equal(math.type(back), "float", json.encode(x))
    check.equal(back, x)
  end
  check.equal(json.encode(0.1), "0.1")
  check.equal(json.encode(1.0), "1.0")
  check.equal(math.type(json.decode("1e2")), "float")
end)

check.case("numbers that are not finite become null", function()
  check.equal(json.encode { a = 0 / 0, b = 1 / 0, c = -1 / 0 },
    '{"a":null,"b":null,"c":null}')
end)

check.case("strings round-trip", function()
  local texts = { "", "plain", 'q"b\\s/', "tab\tnl\nnul\0end", "\127",
    "é€😀", "\u{10FFFF}", ("x"):rep(100000), "\\u0041", "\226\128\168" }
  for _, text in ipairs(texts) do
    check.equal(json.decode(json.encode(text)), text)
  end
  check.equal(json.encode("a/b"), '"a/b"')
  check.equal(json.decode [["\u00e9\ud83d\ude00\/\b\f\n\r\t\u0000"]],
    "é😀/\b\f\n\r\t\0")
end)

check.case("keys are sorted, or in the order given", function()
  check.equal(json.encode { b = 1, a = 2, C = 3 }, '{"C":3,"a":2,"b":1}')
  local t = json.ordered { { "z", 1 }, { "a", 2 } }
  t.m = 3
  t.z = nil
  check.equal(json.encode(t), '{"a":2,"m":3}')
  t.z = 4
  local seen = {}
  for key in pairs(t) do seen[#seen + 1] = key end
  check.equal(table.concat(seen), "zam")
  local back = json.decode('{"z":1,"a":{"y":2,"b":3}}', { ordered = true })
  check.equal(json.encode(back), '{"z":1,"a":{"y":2,"b":3}}')
end)

check.case("arrays and objects stay what they are", function()
  check.equal(json.encode(json.array()), "[]")
  check.equal(json.encode {}, "{}")
  check.equal(json.encode(json.object { "a" }), '{"1":"a"}')
  for _, text in ipairs { "[]", "{}", "[[],{}]", '{"a":[]}', "[null,1]",
    '[1,[2,[3,{"a":[4]}]]]' } do
    check.equal(json.encode(json.decode(text)), text)
  end
  check.equal(#json.decode("[null,null]"), 2)
  check.equal(json.decode("null"), json.null)
  check.equal(tostring(json.null), "null")
end)

check.case("indented text", function()
  check.equal(json.encode({ a = { 1, 2 }, b = {} }, { indent = 2 }),
    '{\n  "a": [\n    1,\n    2\n  ],\n  "b": {}\n}')
end)

check.case("what has no JSON form is refused, with its place", function()
  local loop = {}
  loop.a = { loop }
  check.raises("cannot encode f: a function has no JSON form",
    json.encode, { f = print })
  check.raises("cannot encode a.[2].b: a thread has no JSON form",
    json.encode, { a = { 1, { b = coroutine.create(print) } } })
  check.raises("a table holds itself", json.encode, loop)
  check.raises("an array has holes (2 values, last at 3)",
    json.encode, { 1, nil, 3 })
  check.raises("an array has the key x", json.encode, { 1, x = 2 })
  check.raises("a string is not UTF-8", json.encode, { "\255" })
  check.raises("a string is not UTF-8", json.encode, { ["\xC0\x80"] = 1 })
  check.raises("a key is a boolean", json.encode, { [true] = 1 })
  local deep = {}
  for _ = 1, 200 do deep = { deep } end
  check.raises("deeper than 128 levels", json.encode, deep)
end)

check.case("what is not JSON is refused, with line and column", function()
  refused("", "line 1, column 1: expected a value, got the end")
  refused("[NaN]", "line 1, column 2: expected a value, got 'NaN'")
  refused("Infinity", "line 1, column 1: expected a value, got 'Infinity'")
  refused("0x10", "line 1, column 1: '0x10' is no JSON number")
  refused("01", "line 1, column 1: '01' is no JSON number")
  refused("1.", "line 1, column 1: '1.' is no JSON number")
  refused("1e400", "line 1, column 1: '1e400' is out of range")
  refused("+1", "line 1, column 1: expected a value, got '+1'")
  refused("-", "line 1, column 1: expected a value, got '-'")
  refused("[1,]", "line 1, column 4: expected a value, got ']'")
  refused("[1 2]", "line 1, column 4: expected ',' or ']', got '2'")
  refused('{"a":1,}', "line 1, column 8: expected a key, got '}'")
  refused('{a:1}', "line 1, column 2: expected a key, got 'a'")
  refused('{"a" 1}', "line 1, column 6: expected ':', got '1'")
  refused('{"a":1,\n "a":2}', "line 2, column 2: the key 'a' twice")
  refused('{"a":null,"a":2}', "line 1, column 11: the key 'a' twice")
  refused("[1]\n\n  x", "line 3, column 3: 'x' after the value")
  refused('"abc', "line 1, column 1: a string without an end")
  refused('"a\\', "line 1, column 1: a string without an end")
  refused('"a\tb"', "line 1, column 3: a control character in a string")
  refused('"\\x"', "line 1, column 1: a string with a bad escape")
  refused('"\\ud800"', "line 1, column 1: a string with a bad escape")
  refused('"\255"', "line 1, column 2: not UTF-8")
  refused('"\xED\xA0\x80"', "line 1, column 2: not UTF-8")
  refused("tru", "line 1, column 1: expected a value, got 'tru'")
  refused("nulls", "line 1, column 1: expected a value, got 'nulls'")
  refused(("["):rep(129), "line 1, column 129: deeper than 128 levels")
end)

-- Cut, changed and doubled bytes: never a crash, and nothing odd gets in.
check.case("damaged texts are values or errors", function()
  local text = json.encode { a = { 1, 2.5, "x\n", true, json.null },
    b = { c = { d = "é" } } }
  for i = 1, #text do
    for _, piece in ipairs { "", "\0", '"', "\\", "}", "9", "\255" } do
      local bad = text:sub(1, i - 1) .. piece .. text:sub(i + 1)
      local value, why = json.decode(bad)
      check.truthy(value ~= nil or type(why) == "string", bad)
    end
  end
end)

check.case("arguments of the wrong type raise", function()
  check.raises("host.json.decode: expected a string, got table",
    json.decode, {})
  check.raises("host.json.decode: expected a string, got nil", json.decode)
end)

check.done()
