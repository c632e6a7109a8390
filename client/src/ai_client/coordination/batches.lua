-- One call about batches that hosts share; the same as batch_books.py, which says why, and held to it by tests.
-- KEYS: the batches by name (a hash), the chunks to do (a stream with the group `hosts`), then where the call is about one
-- batch: the batch (a hash), its chunks (a hash), its lines that are done (a bitmap), its results (a hash); one hash tag.
-- ARGV: what to do, then what the function of that name at the end takes.
-- A call that adds begins with a write that a full memory refuses, so it is done whole or not at all; one that makes
-- room begins with one that is never refused, and an engine lets a script that has written go on.
-- Prompts, answers and keys are sealed by hosts: nothing of them is ever here in clear.

local GROUP = 'hosts'
local RELEASED_MS = 86400000
local DAY_MS = 86400000
local REMEMBERED_S = 604800
local PENDING_LOOKED_AT = 10000
local names, lines, batch, chunks, done, results = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

local function number_of(name) return tonumber(redis.call('HGET', batch, name) or 0) end

local function is_known() return redis.call('HEXISTS', batch, 'id') == 1 end

local function is_there() return is_known() and redis.call('HGET', batch, 'ended') ~= '1' end

local function is_entry(entry, id, chunk)
  local found = redis.call('XRANGE', lines, entry, entry)
  return #found == 1 and found[1][2][2] == id and found[1][2][4] == chunk
end

local function is_held(consumer, entry, id, chunk)
  return is_entry(entry, id, chunk)
    and #redis.call('XPENDING', lines, GROUP, entry, entry, 1, consumer) == 1
end

local function retire(entry, id, chunk)
  if is_entry(entry, id, chunk) then
    redis.call('XACK', lines, GROUP, entry)
    redis.call('XDEL', lines, entry)
  end
  if is_there() then
    local size = redis.call('HSTRLEN', chunks, chunk)
    if redis.call('HDEL', chunks, chunk) == 1 then
      redis.call('HINCRBY', batch, 'bytes', -size)
      redis.call('HINCRBY', batch, 'open', -1)
    end
  end
end

local function is_done(first, last, count)
  return redis.call('BITCOUNT', done, first, last, 'BIT') == tonumber(count)
end

local function hold(consumer, entry, id, chunk)
  if not is_there() then return 'gone' end
  if redis.call('HGET', batch, 'cancelled') == '1' then return 'cancelled' end
  if not is_held(consumer, entry, id, chunk) then return 'lost' end
  redis.call('XCLAIM', lines, GROUP, consumer, 0, entry, 'JUSTID')
  return 'held'
end

local function sealed_keys()
  local found = {}
  local fields = redis.call('HGETALL', batch)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 4) == 'key.' then
      found[#found + 1] = string.sub(fields[i], 5)
      found[#found + 1] = fields[i + 1]
    end
  end
  return found
end

local function consumers()
  local found = {}
  for n, told in ipairs(redis.call('XINFO', 'CONSUMERS', lines, GROUP)) do
    found[n] = {}
    for i = 1, #told, 2 do found[n][told[i]] = told[i + 1] end
  end
  return found
end

local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- How long chunks of the batch wait while no host takes or holds any. Redis 7.0 sees only whom it gives something, so
-- this must be longer than a chunk of a host that is gone takes to become another's.
local function unasked_ms(idle_ms)
  if number_of('open') == 0 then return 0 end
  local unasked = now_ms() - number_of('waits_since')
  for _, fact in ipairs(consumers()) do unasked = math.min(unasked, fact.idle) end
  return unasked >= 2 * tonumber(idle_ms) and unasked or 0
end

local function drop_old_consumers()
  for _, fact in ipairs(consumers()) do
    if fact.pending == 0 and fact.idle > DAY_MS then redis.call('XGROUP', 'DELCONSUMER', lines, GROUP, fact.name) end
  end
end

local call = {}

function call.open(id, name, opened_at, host, identity, ...)
  local there = redis.call('HGET', names, name)
  if there then return there end
  redis.call('HSET', batch, 'id', id, 'name', name, 'opened_at', opened_at, 'host', host, 'identity', identity)
  redis.call('HSET', names, name, id)
  local keys = { ... }
  for i = 1, #keys, 2 do redis.call('HSET', batch, 'key.' .. keys[i], keys[i + 1]) end
  if redis.call('EXISTS', lines) == 0 then redis.call('XGROUP', 'CREATE', lines, GROUP, '0', 'MKSTREAM') end
  drop_old_consumers()
  return id
end

function call.wrap(id, key, sealed)
  if is_known() then redis.call('HSET', batch, 'key.' .. key, sealed) end
end

function call.look()
  if not is_known() then return {} end
  local fields = redis.call('HGETALL', batch)
  fields[#fields + 1] = 'results'
  fields[#fields + 1] = redis.call('HLEN', results)
  return fields
end

function call.index() return redis.call('HGETALL', names) end

local function add(id, offset, finish, first, last, count, sealed, room)
  if not is_there() then return 'gone' end
  if redis.call('HGET', batch, 'cancelled') == '1' then return 'cancelled' end
  if redis.call('HGET', batch, 'closed') == '1' then return 'closed' end
  if number_of('offset') ~= tonumber(offset) then return 'moved' end
  if number_of('bytes') > tonumber(room) then return 'full' end
  local chunk = tostring(number_of('chunks') + 1)
  redis.call('HSET', chunks, chunk, sealed)
  redis.call('HSET', batch, 'offset', finish, 'last', last, 'chunks', chunk)
  redis.call('HINCRBY', batch, 'lines', count)
  if redis.call('HINCRBY', batch, 'open', 1) == 1 then
    redis.call('HSET', batch, 'waits_since', string.format('%d', now_ms()))
  end
  redis.call('HINCRBY', batch, 'bytes', #sealed)
  redis.call('XADD', lines, '0-*', 'batch', id, 'chunk', chunk, 'first', first, 'last', last, 'count', count)
  return 'added'
end

function call.add(...)
  local added = add(...)
  if added == 'gone' then return { added, 0, 0 } end
  return { added, number_of('offset'), number_of('last') }
end

function call.close(id, offset)
  if not is_there() or number_of('offset') ~= tonumber(offset) then return 0 end
  redis.call('HSET', batch, 'closed', '1')
  return 1
end

function call.take(consumer, idle_ms)
  if redis.call('XLEN', lines) == 0 then return {} end
  local entry
  local idle = redis.call('XPENDING', lines, GROUP, 'IDLE', idle_ms, '-', '+', 1)
  if #idle == 1 then
    entry = redis.call('XCLAIM', lines, GROUP, consumer, idle_ms, idle[1][1])[1]
  else
    local fresh = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', 1, 'STREAMS', lines, '>')
    entry = fresh and fresh[1] and fresh[1][2][1]
  end
  if not entry then return {} end
  local f = entry[2]
  return { entry[1], f[2], f[4], f[6], f[8], f[10] }
end

function call.begin(id, consumer, entry, chunk, first, last, count)
  local held = hold(consumer, entry, id, chunk)
  local sealed = held == 'held' and redis.call('HGET', chunks, chunk)
  if held == 'held' and (not sealed or is_done(first, last, count)) then held = 'lost' end
  if held == 'held' then
    local bits = redis.call('GETRANGE', done, math.floor(first / 8), math.floor(last / 8))
    return { 'held', sealed, bits, unpack(sealed_keys()) }
  end
  if held ~= 'lost' or is_held(consumer, entry, id, chunk) then retire(entry, id, chunk) end
  return { held }
end

function call.hold(id, consumer, entry, chunk) return hold(consumer, entry, id, chunk) end

function call.answer(id, entry, chunk, first, last, count, line, failed, result)
  if not is_there() then return 'gone' end
  if redis.call('GETBIT', done, line) == 1 then return 'double' end
  redis.call('SETBIT', done, line, 1)
  redis.call('HSET', results, line, result)
  redis.call('HINCRBY', batch, 'done', 1)
  redis.call('HINCRBY', batch, 'failed', failed)
  redis.call('HINCRBY', batch, 'bytes', #result)
  if is_done(first, last, count) then retire(entry, id, chunk) end
  return 'kept'
end

function call.release(id, consumer, entry, chunk)
  if not is_there() or redis.call('HGET', batch, 'cancelled') == '1' then
    retire(entry, id, chunk)
  elseif is_held(consumer, entry, id, chunk) then
    redis.call('XCLAIM', lines, GROUP, consumer, 0, entry, 'IDLE', RELEASED_MS, 'JUSTID')
  end
end

function call.page(id, fetcher, token, takes_over, most, room)
  if not is_there() then return { 'gone', '' } end
  local before = redis.call('HGET', batch, 'fetcher') or ''
  if before ~= token then
    if before ~= '' and takes_over ~= '1' then return { 'other', redis.call('HGET', batch, 'output') } end
    redis.call('HDEL', batch, 'output')
    redis.call('HDEL', results, '')
    redis.call('HSET', batch, 'fetcher', token, 'output', fetcher)
  end
  local page, size = { 'ours', '' }, 0
  for _, line in ipairs(redis.call('HRANDFIELD', results, most)) do
    local result = redis.call('HGET', results, line)
    page[#page + 1] = line
    page[#page + 1] = result
    size = size + #result
    if size >= tonumber(room) then break end
  end
  return page
end

function call.drop(id, token, ...)
  if not is_there() or redis.call('HGET', batch, 'fetcher') ~= token then return 0 end
  local dropped, size = 0, 0
  for _, line in ipairs({ ... }) do
    local length = redis.call('HSTRLEN', results, line)
    if redis.call('HDEL', results, line) == 1 then dropped, size = dropped + 1, size + length end
  end
  if dropped > 0 then
    redis.call('HINCRBY', batch, 'bytes', -size)
    redis.call('HINCRBY', batch, 'fetched', dropped)
  end
  return dropped
end

function call.cancel()
  if not is_there() then return 0 end
  redis.call('HDEL', batch, 'closing')
  redis.call('HSET', batch, 'cancelled', '1')
  return 1
end

function call.finish(id)
  if not is_there() then return 0 end
  redis.call('UNLINK', chunks, done, results)
  redis.call('HSET', batch, 'ended', '1', 'bytes', '0')
  return redis.call('EXPIRE', batch, REMEMBERED_S)
end

function call.discard(id, name)
  if redis.call('HGET', names, name) == id then redis.call('HDEL', names, name) end
  return redis.call('UNLINK', batch, chunks, done, results)
end

function call.flight(id, idle_ms)
  local found = { 0, 0 }
  if redis.call('XLEN', lines) == 0 then return found end
  if is_there() then found[2] = unasked_ms(idle_ms) end
  for _, held in ipairs(redis.call('XPENDING', lines, GROUP, '-', '+', PENDING_LOOKED_AT)) do
    local entry = redis.call('XRANGE', lines, held[1], held[1])[1]
    if entry and entry[2][2] == id and held[3] < tonumber(idle_ms) then
      local f = entry[2]
      found[1] = found[1] + tonumber(f[10]) - redis.call('BITCOUNT', done, f[6], f[8], 'BIT')
      found[#found + 1] = held[2]
    end
  end
  return found
end

return call[ARGV[1]](unpack(ARGV, 2))
