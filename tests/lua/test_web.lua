-- host.web: what a handler may do, and what becomes of the browser meanwhile.
local check = require "check"
local host = require "host"

-- Ask for a path by the shell's own sockets; the child's whole output comes
-- from p:read_line.
local function ask(port, path)
  local request = ("GET %s HTTP/1.1\\r\\nHost: 127.0.0.1:%d\\r\\n"
    .. "Connection: close\\r\\n\\r\\n"):format(path, port)
  return assert(host.process.spawn { "bash", "-c",
    ("exec 3<>/dev/tcp/127.0.0.1/%d; printf %%b '%s' >&3; cat <&3"):format(port,
      request), stdin = "null", stdout = "pipe", stderr = "null" })
end

local function served(handler)
  local s, message = host.web.serve { port = 0, handler = handler }
  if not s then check.skip(message) end
  return s
end

-- Serve until the child has all of the answer; gives it, and what run() said.
local function answer(s, path)
  local p <close> = ask(s:port(), path)
  local ends, said = host.clock() + 20, nil
  repeat
    local ok, why = s:run(.05)
    said = said or not ok and why or nil
  until p:wait(0) or host.clock() > ends
  local lines, line = {}, p:read_line(1)
  while line do
    lines[#lines + 1], line = line, p:read_line(1)
  end
  return table.concat(lines, "\n"), said
end

check.case("status, type, body, a file's name", function()
  local s <close> = served(function(path, query)
    return 201, "text/x-test", path .. " " .. tostring(query.a), "a/b.txt"
  end)
  local text = answer(s, "/p?a=1%3D2")
  check.truthy(text:find("^HTTP/1.1 201 "), text)
  check.truthy(text:find("Content-Type: text/x-test", 1, true), text)
  check.truthy(text:find('filename="a_b.txt"', 1, true), text)
  check.truthy(text:find("/p 1=2", 1, true), text)
end)

check.case("what a handler raises is told to both", function()
  local s <close> = served(function() error("on purpose", 0) end)
  local text, said = answer(s, "/")
  check.truthy(text:find("^HTTP/1.1 500 "), text)
  check.truthy(not text:find("on purpose", 1, true), "the browser saw it")
  check.equal(said, "on purpose")
end)

check.case("answers that are none", function()
  local given
  local s <close> = served(function() return table.unpack(given, 1, 4) end)
  for _, bad in ipairs { {}, { 200 }, { "200" }, { 200, "t" }, { {}, {}, {} },
    { 200, "t", {} }, { 1.5, "t", "b" }, { "STREAM" } } do
    given = bad
    local text = answer(s, "/")
    check.truthy(text:find("^HTTP/1.1 500 "), text)
  end
end)

check.case("a handler that closes, or runs, its own server", function()
  local s
  s = served(function()
    s:close()
    return 200, "text/plain", "closed"
  end)
  check.raises("closed", answer, s, "/")
  local t
  t = served(function()
    return coroutine.yield(200)
  end)
  check.truthy(answer(t, "/"):find "^HTTP/1.1 500 ")
  t:close()
end)

check.case("run inside a handler is refused", function()
  local s <close>, why = nil, nil
  local t
  t = served(function()
    local _, message = t:run(0)
    why = message
    return 200, "text/plain", "fine"
  end)
  check.truthy(answer(t, "/"):find("fine", 1, true))
  check.equal(why, "the web server is running already")
  t:close()
  check.equal(s, nil)
end)

check.case("wrong options", function()
  check.raises("port", host.web.serve, { port = 70000, handler = print })
  check.raises("handler must be a function", host.web.serve, {})
  check.raises("handler must be a function", host.web.serve,
    { handler = "x" })
  check.raises("did you mean", host.web.serve,
    { handlr = print, handler = print })
end)

check.done()
