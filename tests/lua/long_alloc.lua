-- Every allocation of our own code fails once: a clean error or success, the
-- same bits, no crash, nothing left behind.
require("allocfail").cases(1)
require("check").done()
