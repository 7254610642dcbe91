-- Some of our own allocations fail, one at a time; long_alloc has all of them.
require("allocfail").cases(5)
require("check").done()
