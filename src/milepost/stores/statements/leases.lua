-- Prelude of what renews leases: `renew(first)` renews those that ARGV names from `first` on (microseconds from now, empty:
-- only look; id and token of each) and gives for each 2 live, 1 stopping, 0 lost.
local function renew(first)
  local expires = ARGV[first] ~= '' and string.format('%.0f', this.clock + ARGV[first])
  local answers, live, stopping, n, m = {}, {}, {}, 0, 0
  for i = first + 1, #ARGV, 2 do
    local id, token = ARGV[i], ARGV[i + 1]
    local answer = 0
    if redis.pcall('HGET', root .. 'j:' .. id, 'T') == token then
      answer = 2
      if expires then
        redis.call('HSET', root .. 'j:' .. id, 'L', expires)
        live[n + 1], live[n + 2] = expires, id
        n = n + 2
      end
    elseif stops() then
      local stop = redis.call('HGET', root .. 's', id)
      if stop and string.match(stop, '^%Z*') == token then
        answer = 1
        if expires then
          stopping[m + 1], stopping[m + 2] = expires, id
          m = m + 2
        end
      end
    end
    answers[#answers + 1] = answer
    if n > 2000 then
      redis.call('ZADD', root .. 'lease', unpack(live))
      live, n = {}, 0
    end
    if m > 2000 then
      redis.call('ZADD', root .. 'sx', unpack(stopping))
      stopping, m = {}, 0
    end
  end
  if n > 0 then redis.call('ZADD', root .. 'lease', unpack(live)) end
  if m > 0 then redis.call('ZADD', root .. 'sx', unpack(stopping)) end
  return answers
end

