-- One call of a host for its shared budgets; the same as budget_books.py, which says why, and held to it by tests.
-- KEYS: the account (a hash), its roster (a hash), then for each wish the book of its budget (a hash), all on one hash tag.
-- ARGV: host, ledger, nonce, epoch, ack, version, is_settled, has_waited, reports, the roster a name a line, then for each
-- wish the fields of budget_protocol.Wish, in their order.
-- Where the ledger is empty the host is gone for good, and taken off the roster.
-- Answers: the fields of budget_protocol.BudgetAnswer, in their order, the roster a name a line, the booleans as 0 and 1.
-- Nothing of a prompt, an answer or a key is ever here.

local NO_LIMIT = -1
local KEPT_PERIODS = 32

local function run_id()
  local server = redis.call('INFO', 'server')
  local replication = redis.call('INFO', 'replication')
  return string.match(server, 'run_id:(%w+)') .. string.match(replication, 'master_replid:(%w+)')
end

local function flag(truth) return truth and 1 or 0 end

local function lines(text)
  local found = {}
  for name in string.gmatch(text, '[^\n]+') do found[#found + 1] = name end
  return found
end

local function read_account()
  local packed = redis.call('HGET', KEYS[1], '')
  if not packed then return { run = '', epoch = '', order = 0, version = 0, recovering = 1 } end
  local a = cmsgpack.unpack(packed)
  return { run = a[1], epoch = a[2], order = a[3], version = a[4], recovering = a[5] }
end

local function write_account(a)
  redis.call('HSET', KEYS[1], '', cmsgpack.pack({ a.run, a.epoch, a.order, a.version, a.recovering }))
end

-- The roster: {ledger, joined, acked, settled, reported, forgotten}
local function unpack_fellow(packed)
  local f = cmsgpack.unpack(packed)
  return { ledger = f[1], joined = f[2], acked = f[3], settled = f[4], reported = f[5], forgotten = f[6] }
end

local function fresh_fellow(ledger, joined)
  return { ledger = ledger, joined = joined, acked = 0, settled = 0, reported = 0, forgotten = 0 }
end

local function read_fellow(host)
  local packed = redis.call('HGET', KEYS[2], host)
  return packed and unpack_fellow(packed) or nil
end

local function write_fellow(host, f)
  redis.call('HSET', KEYS[2], host, cmsgpack.pack({ f.ledger, f.joined, f.acked, f.settled, f.reported, f.forgotten }))
end

local function all_fellows()
  local flat = redis.call('HGETALL', KEYS[2])
  local fellows = {}
  for i = 1, #flat, 2 do fellows[flat[i]] = unpack_fellow(flat[i + 1]) end
  return fellows
end

local function begin_epoch(account, run, q)
  account.run, account.epoch = run, run .. '.' .. q.nonce
  account.version, account.recovering = account.version + 1, 1
  for host, f in pairs(all_fellows()) do
    f.acked, f.reported = 0, f.forgotten
    write_fellow(host, f)
  end
end

local function fellow_of(account, q)
  local f = read_fellow(q.host)
  if f and f.ledger == q.ledger then return f end
  account.version = account.version + 1
  return fresh_fellow(q.ledger, account.version)
end

local function count_missing()
  local missing = 0
  for _, f in pairs(all_fellows()) do missing = missing + 1 - f.reported end
  return missing
end

local function recover(account, q, fellow)
  if q.reports == 1 then
    fellow.reported = 1
    for _, name in ipairs(lines(q.roster)) do
      if name ~= q.host and not read_fellow(name) then
        account.version = account.version + 1
        write_fellow(name, fresh_fellow('', account.version))
      end
    end
  end
  write_fellow(q.host, fellow)
  local fellows, missing, settled = all_fellows(), 0, 0
  for _, f in pairs(fellows) do
    missing = missing + 1 - f.reported
    settled = settled + f.settled
  end
  if missing > 0 or (settled == 0 and q.waited == 0) then return end
  account.recovering = 0
  for name, f in pairs(fellows) do
    if f.forgotten == 1 then
      account.version = account.version + 1
      redis.call('HDEL', KEYS[2], name)
    end
  end
end

local function settle(account, q, fellow)
  if fellow.settled == 1 or fellow.acked ~= account.version then return end
  local others, witnessed = false, false
  for host, f in pairs(all_fellows()) do
    if host ~= q.host and f.settled == 1 then
      others = true
      if f.acked >= fellow.joined then witnessed = true end
    end
  end
  if not others or witnessed then fellow.settled = 1 end
end

local function read_made()
  local packed = redis.call('HGET', KEYS[1], 'made')
  return packed and cmsgpack.unpack(packed) or {}
end

-- Whether the roster or a book that the call is about is gone, and the account is not: an eviction takes one key.
local function has_lost(account, wishes)
  if account.version > 0 and redis.call('EXISTS', KEYS[2]) == 0 then return true end
  for i, w in ipairs(wishes) do
    if redis.call('EXISTS', KEYS[i + 2]) == 0 then
      for _, each in ipairs(read_made()) do
        if each[1] == w.scope and each[2] == w.period then return true end
      end
    end
  end
  return false
end

-- Notes a budget that is new, and forgets the oldest of its kind where there are many.
local function note_made(scope, period)
  local made, alike, kept = {}, {}, {}
  for _, each in ipairs(read_made()) do
    if each[1] ~= scope or each[2] ~= period then made[#made + 1] = each end
  end
  made[#made + 1] = { scope, period }
  for _, each in ipairs(made) do
    if each[1] == scope and #each[2] == #period then alike[#alike + 1] = each end
  end
  local gone = #alike > KEPT_PERIODS and alike[1] or nil
  if gone then redis.call('DEL', KEYS[1] .. '.' .. gone[1] .. '.' .. gone[2]) end
  for _, each in ipairs(made) do
    if each ~= gone then kept[#kept + 1] = each end
  end
  redis.call('HSET', KEYS[1], 'made', cmsgpack.pack(kept))
end

-- A book: {retired, hungry_at, out, limit, spent, tellers}; an entry: {ledger, granted, returned, limit, spent}.
-- A release that knows nothing of what is spent leaves it out where it writes.
local function sum_of_spent(key)
  local sum, flat = 0, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    if flat[i] ~= '' then sum = sum + (cmsgpack.unpack(flat[i + 1])[5] or 0) end
  end
  return sum
end

local function read_book(key, scope, period)
  local packed = redis.call('HGET', key, '')
  if not packed then
    note_made(scope, period)
    return { retired = 0, hungry_at = 0, out = 0, limit = NO_LIMIT, spent = 0, tellers = {} }
  end
  local b = cmsgpack.unpack(packed)
  return { retired = b[1], hungry_at = b[2], out = b[3], limit = b[4], spent = b[5] or sum_of_spent(key),
           tellers = b[6] or {} }
end

local function smallest_limit(key, host, own)
  local least = own
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    if flat[i] ~= '' and flat[i] ~= host then
      local limit = cmsgpack.unpack(flat[i + 1])[4]
      if limit ~= NO_LIMIT and (least == NO_LIMIT or limit < least) then least = limit end
    end
  end
  return least
end

local function entry_of(key, book, q)
  local packed = redis.call('HGET', key, q.host)
  local entry = { granted = 0, returned = 0, limit = NO_LIMIT, before = NO_LIMIT }
  if packed then
    local e = cmsgpack.unpack(packed)
    entry.before = e[4]
    book.spent = book.spent - (e[5] or 0)
    if e[1] == q.ledger then
      entry.granted, entry.returned, entry.limit = e[2], e[3], e[4]
      book.out = book.out - (e[2] - e[3])
    else
      book.retired = book.retired + e[2] - e[3]
    end
  end
  return entry
end

local function account_for(account, fellow, q, key, w)
  local book = read_book(key, w.scope, w.period)
  local entry = entry_of(key, book, q)
  entry.granted = math.max(entry.granted, w.granted, w.returned + w.used)
  entry.returned = math.max(entry.returned, w.returned)
  if w.limit ~= NO_LIMIT then entry.limit = w.limit end
  if entry.limit ~= entry.before then
    if entry.before ~= NO_LIMIT and entry.before == book.limit then
      book.limit = smallest_limit(key, q.host, entry.limit)
    elseif entry.limit ~= NO_LIMIT and (book.limit == NO_LIMIT or entry.limit < book.limit) then
      book.limit = entry.limit
    end
  end
  local held = entry.granted - entry.returned
  local need = w.want - held
  if need > 0 and fellow.settled == 1 and account.recovering == 0 then
    local given = math.max(0, math.min(need, book.limit - book.out - held))
    entry.granted, held = entry.granted + given, held + given
    if given < need then book.hungry_at = account.order end
  end
  book.out, book.spent = book.out + held, book.spent + w.spent
  if w.mark ~= '' and not book.tellers[w.mark] then book.tellers[w.mark] = q.host end
  redis.call('HSET', key, q.host, cmsgpack.pack({ q.ledger, entry.granted, entry.returned, entry.limit, w.spent }))
  redis.call('HSET', key, '', cmsgpack.pack({ book.retired, book.hungry_at, book.out, book.limit, book.spent, book.tellers }))
  local hungry = book.hungry_at > 0 and account.order - book.hungry_at <= 2 * redis.call('HLEN', KEYS[2])
  return entry.granted, entry.returned, book.limit - book.out, book.limit, flag(hungry), book.retired + book.spent,
         book.tellers[w.mark] or ''
end

local function call(run, q, wishes)
  local account = read_account()
  local is_behind = q.epoch == account.epoch and q.ack > account.order
  if account.run ~= run or is_behind or has_lost(account, wishes) then begin_epoch(account, run, q) end
  account.order = account.order + 1
  local same = q.epoch == account.epoch
  local fellow = fellow_of(account, q)
  if same then fellow.acked = math.max(fellow.acked, math.min(q.version, account.version)) end
  fellow.settled = math.max(fellow.settled, q.settled)
  if same and account.recovering == 1 then
    recover(account, q, fellow)
  elseif same then
    settle(account, q, fellow)
  end
  write_fellow(q.host, fellow)
  local holdings = {}
  for i, w in ipairs(wishes) do
    for _, number in ipairs({ account_for(account, fellow, q, KEYS[i + 2], w) }) do
      holdings[#holdings + 1] = number
    end
  end
  write_account(account)
  local knows = same and q.version == account.version
  local roster = knows and '' or table.concat(redis.call('HKEYS', KEYS[2]), '\n')
  local missing = account.recovering == 1 and count_missing() or 0
  local answer = { account.epoch, account.order, account.version, fellow.settled, account.recovering, missing, roster }
  for _, number in ipairs(holdings) do answer[#answer + 1] = number end
  return answer
end

local function forget(host)
  local account = read_account()
  if account.recovering == 1 then
    local f = fresh_fellow('', 0)
    f.reported, f.forgotten = 1, 1
    write_fellow(host, f)
  elseif redis.call('HDEL', KEYS[2], host) == 1 then
    account.version = account.version + 1
    write_account(account)
  end
  return 1
end

if ARGV[2] == '' then return forget(ARGV[1]) end
local q = { host = ARGV[1], ledger = ARGV[2], nonce = ARGV[3], epoch = ARGV[4], roster = ARGV[10] }
for i, name in ipairs({ 'ack', 'version', 'settled', 'waited', 'reports' }) do q[name] = tonumber(ARGV[i + 4]) end
local wishes = {}
for i = 11, #ARGV, 9 do
  local w = { scope = ARGV[i], period = ARGV[i + 1], mark = ARGV[i + 8] }
  for j, name in ipairs({ 'limit', 'granted', 'returned', 'used', 'want', 'spent' }) do w[name] = tonumber(ARGV[i + 1 + j]) end
  wishes[#wishes + 1] = w
end
return call(run_id(), q, wishes)
