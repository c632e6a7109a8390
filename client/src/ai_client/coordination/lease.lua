-- One call of a host for one or more of an account's quotas; the same as books.py, which says why, and held to it by tests.
-- KEYS: what hosts say of themselves and when each said it (hashes), then for each quota its books (a hash) and
-- its order of confirmations (a sorted set), all on one hash tag.
-- ARGV: host, instance, what it says of itself, then for each quota the fields of protocol.QuotaRequest after the first two, in their order.
-- Where the instance is empty the host is gone for good, and forgotten where the books may: 1 or 0.
-- Answers: for each quota the fields of protocol.QuotaAnswer, in their order, the booleans as 0 and 1.
-- Nothing of a prompt, an answer or a key is ever here.

local MOST_LEVEL = 1000000
local SWEEPS = 16
local UNKNOWN = -1
local PRESENT, AWAY, UNHEARD = 0, 1, 2

local function run_id()
  local server = redis.call('INFO', 'server')
  local replication = redis.call('INFO', 'replication')
  return string.match(server, 'run_id:(%w+)') .. string.match(replication, 'master_replid:(%w+)')
end

local function floor(a, b) return math.floor(a / b) end
local function flag(truth) return truth and 1 or 0 end
local function text(number) return string.format('%.0f', number) end

-- A member: {instance, ticket, number, order, confirmed, held, cap, share, floor, demand, presence}
local function read_member(packed)
  if not packed then return nil end
  local m = cmsgpack.unpack(packed)
  return { instance = m[1], ticket = m[2], number = m[3], order = m[4], confirmed = m[5], held = m[6], cap = m[7],
           share = m[8], floor = m[9], demand = m[10], presence = m[11] }
end

local function pack_member(m)
  return cmsgpack.pack({ m.instance, m.ticket, m.number, m.order, m.confirmed, m.held, m.cap, m.share, m.floor,
                         m.demand, m.presence })
end

-- The account: the sums over all members are kept beside them.
local NUMBERS = { 'order', 'viewed', 'marked', 'soft', 'past', 'level', 'slack', 'hungry', 'swept',
                  'hosts', 'shares', 'kept', 'claims', 'worst' }

local function read_account(key)
  local packed = redis.call('HGET', key, '')
  local account = { run = '', epoch = '' }
  for _, name in ipairs(NUMBERS) do account[name] = 0 end
  if packed then
    local all = cmsgpack.unpack(packed)
    account.run, account.epoch = all[1], all[2]
    for i, name in ipairs(NUMBERS) do account[name] = all[i + 2] end
  end
  return account
end

local function write_account(key, account)
  local all = { account.run, account.epoch }
  for i, name in ipairs(NUMBERS) do all[i + 2] = account[name] end
  redis.call('HSET', key, '', cmsgpack.pack(all))
end

local function claim(m)
  if m.presence == PRESENT then return m.cap end
  return math.max(m.cap, m.share)
end

local function kept(m)
  if m.presence == PRESENT then return m.held end
  return math.max(m.held, m.share)
end

local function count(account, m, sign)
  account.hosts = account.hosts + sign
  account.shares = account.shares + sign * m.share
  account.kept = account.kept + sign * kept(m)
  account.claims = account.claims + sign * claim(m)
  account.worst = account.worst + sign * math.max(m.cap, m.share)
end

local function all_members(key)
  local flat = redis.call('HGETALL', key)
  local members = {}
  for i = 1, #flat, 2 do
    if flat[i] ~= '' then members[flat[i]] = read_member(flat[i + 1]) end
  end
  return members
end

local function write_members(key, members)
  for host, m in pairs(members) do redis.call('HSET', key, host, pack_member(m)) end
end

local function count_anew(account, members)
  account.hosts, account.shares, account.kept, account.claims, account.worst = 0, 0, 0, 0, 0
  for _, m in pairs(members) do count(account, m, 1) end
end

local function begin_epoch(books, account, run, q)
  account.run = run
  account.epoch = run .. '.' .. q.instance .. '.' .. text(q.number)
  account.viewed, account.marked, account.soft, account.past = 0, 0, 0, 0
  local members = all_members(books)
  for _, m in pairs(members) do
    m.presence, m.order, m.confirmed = UNHEARD, 0, 0
    m.held, m.cap = 0, m.share
  end
  write_members(books, members)
  count_anew(account, members)
end

local function confirm(account, m, order)
  m.confirmed = order
  -- A call that was long on its way is no word of a host that was found silent since.
  if m.presence == AWAY and order >= account.viewed then m.presence = PRESENT end
end

local function bind(account, m, q)
  if not m then
    m = { order = 0, confirmed = 0, held = q.share, cap = q.share, share = q.share, floor = 0, demand = 0,
          presence = UNHEARD }
  end
  m.instance, m.ticket, m.number = q.instance, q.ticket, 0
  if m.presence ~= UNHEARD then confirm(account, m, q.ticket) else m.confirmed = q.ticket end
  return m
end

local function report(account, m, q)
  local before = q.cap
  local recovering = account.past == 0
  if q.held == UNKNOWN then
    before = recovering and q.floor or m.cap
    if recovering and m.presence == UNHEARD then m.held = q.floor end
  elseif m.presence == UNHEARD and recovering then
    m.held = q.held
  else
    m.held = math.min(m.held, q.held)
  end
  if m.presence == UNHEARD then m.presence = AWAY end
  m.held = math.max(m.held, q.used)
  m.share, m.floor, m.demand = q.share, q.floor, q.demand
  return before
end

-- Marks those away that were not confirmed since the caller's view. The caller itself is out of the sorted set.
local function look(keys, account, q)
  account.soft = math.max(account.soft, q.soft)
  account.past = math.max(account.past, q.past)
  if q.view == 0 then return false end
  if q.ripe == 0 then return account.marked > q.view end
  account.marked = account.order
  if q.view > account.viewed then
    account.viewed = q.view
    local silent = redis.call('ZRANGEBYSCORE', keys.confirmed, '-inf', '(' .. text(q.view))
    for _, host in ipairs(silent) do
      local m = read_member(redis.call('HGET', keys.books, host))
      if m and host ~= q.host then
        count(account, m, -1)
        m.presence = AWAY
        count(account, m, 1)
        redis.call('HSET', keys.books, host, pack_member(m))
      end
      redis.call('ZREM', keys.confirmed, host)
    end
  end
  return true
end

local function fair(account, m, level)
  if m.presence ~= PRESENT or m.order <= account.soft then return m.share end
  return math.max(m.floor, math.min(m.demand, floor(m.share * level, 1000)))
end

local function take_back(keys, account, members)
  for host, m in pairs(members) do
    if m.order <= account.past then
      if m.presence == PRESENT then m.presence = AWAY end
      m.held, m.cap = math.min(m.held, m.share), math.min(m.cap, m.share)
      redis.call('HSET', keys.books, host, pack_member(m))
      redis.call('ZREM', keys.confirmed, host)
    end
  end
end

local function sweep(keys, account, host, caller)
  account.swept = account.order
  local members = all_members(keys.books)
  members[host] = nil
  take_back(keys, account, members)
  members[host] = caller
  count_anew(account, members)
  local function total(level)
    local sum = 0
    for _, m in pairs(members) do sum = sum + fair(account, m, level) end
    return sum
  end
  local low, high = 0, MOST_LEVEL
  while low < high do
    local middle = floor(low + high + 1, 2)
    if total(middle) <= account.shares then low = middle else high = middle - 1 end
  end
  account.level = low
  local hungry = low < MOST_LEVEL
  for _, m in pairs(members) do hungry = hungry or fair(account, m, low) > m.held end
  account.hungry = flag(hungry)
  account.slack = floor(math.max(0, account.shares - total(low)) * 1000, math.max(1, account.shares))
end

local function grant(account, m, q, before, viewed)
  local recovering = account.past == 0
  local want = fair(account, m, account.level) + floor(m.share * account.slack, 1000)
  count(account, m, -1)
  if recovering then
    want = m.held
  elseif want > m.held then
    m.held = m.held + math.max(0, math.min(want - m.held, account.shares + m.share - account.kept - m.held))
  end
  local cap = math.min(m.held, want)
  if viewed then
    cap = math.min(cap, account.shares + m.share - account.claims)
  elseif q.lenient == 1 then
    cap = math.min(cap, before)
  else
    cap = math.min(cap, account.shares + m.share - account.worst)
  end
  if recovering then cap = math.min(cap, before) end
  m.cap = math.max(cap, m.floor)
  m.held = math.max(m.held, m.cap)
  count(account, m, 1)
  return want
end

local function process(keys, account, m, q, same)
  m.number, m.order = q.number, account.order
  local before = report(account, m, q)
  count(account, m, 1)
  local viewed = same and look(keys, account, q)
  if account.order - account.swept > floor(account.hosts, SWEEPS) then sweep(keys, account, q.host, m) end
  local target = grant(account, m, q, before, viewed)
  redis.call('HSET', keys.books, q.host, pack_member(m))
  if m.presence == PRESENT then redis.call('ZADD', keys.confirmed, text(m.confirmed), q.host) end
  local pool = math.max(0, account.shares - account.kept)
  return { 'granted', account.epoch, account.order, m.held, m.cap, flag(viewed), flag(account.past == 0), pool,
           account.shares, account.hosts, account.hungry, target }
end

local function call(keys, run, q)
  local account = read_account(keys.books)
  if account.run ~= run or (q.epoch == account.epoch and q.ack > account.order) then
    begin_epoch(keys.books, account, run, q)
    redis.call('DEL', keys.confirmed)
  end
  account.order = account.order + 1
  local same = q.epoch == account.epoch
  local m = read_member(redis.call('HGET', keys.books, q.host))
  local answer
  if not m or m.instance ~= q.instance then
    if not same or q.ticket <= (m and m.ticket or 0) then
      answer = { 'hello', account.epoch, account.order, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
    else
      if m then count(account, m, -1) end
      answer = process(keys, account, bind(account, m, q), q, same)
    end
  elseif q.number <= m.number then
    answer = { 'stale', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
  else
    count(account, m, -1)
    if same and q.ack > 0 and q.ack == m.order then confirm(account, m, m.order) end
    answer = process(keys, account, m, q, same)
  end
  write_account(keys.books, account)
  return answer
end

local NAMES = { 'ticket', 'number', 'epoch', 'ack', 'view', 'ripe', 'soft', 'past', 'lenient', 'held', 'cap', 'used',
                'share', 'floor', 'demand' }

-- Whether the host is not in the books any more.
local function forget(keys, run, host)
  local account = read_account(keys.books)
  local m = read_member(redis.call('HGET', keys.books, host))
  if not m then return true end
  if account.run ~= run or m.presence == PRESENT or m.order > account.past then return false end
  count(account, m, -1)
  redis.call('HDEL', keys.books, host)
  redis.call('ZREM', keys.confirmed, host)
  write_account(keys.books, account)
  return true
end

local run, host, is_gone = run_id(), ARGV[1], ARGV[2] == ''
local answers = {}
for i = 3, #KEYS, 2 do
  local keys = { books = KEYS[i], confirmed = KEYS[i + 1] }
  if is_gone then
    answers[#answers + 1] = flag(forget(keys, run, host))
  else
    local q = { host = host, instance = ARGV[2] }
    local first = 3 + (i - 3) / 2 * #NAMES
    for j, name in ipairs(NAMES) do
      local value = ARGV[first + j]
      q[name] = name == 'epoch' and value or tonumber(value)
    end
    answers[#answers + 1] = call(keys, run, q)
  end
end
-- The time is for people who read it, and decides nothing.
if not is_gone and answers[1][1] ~= 'stale' then
  redis.call('HSET', KEYS[1], host, ARGV[3])
  redis.call('HSET', KEYS[2], host, redis.call('TIME')[1])
elseif is_gone then
  local everywhere = 1
  for _, gone in ipairs(answers) do everywhere = math.min(everywhere, gone) end
  if everywhere == 1 then
    redis.call('HDEL', KEYS[1], host)
    redis.call('HDEL', KEYS[2], host)
  end
end
return answers
