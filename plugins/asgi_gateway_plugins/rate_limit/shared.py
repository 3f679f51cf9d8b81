"""The same decisions in a store that several processes share: one script, one round trip."""

from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import Literal

from asgi_gateway.store import Arg, MemoryStore, Script, Store, StoreError
from asgi_gateway.units import Rate

from .limiter import AtOnce, Counter, Limiter, Rule, Verdict, WindowKind

OnError = Literal["open", "closed", "local"]

# A window says what room a rule has (what is left, microseconds until there is more, microseconds to wait),
# and spends what is asked for. What was written before the clock was set back counts as written now: it is
# over after a window at the latest.

FIXED = """
local function room(rule)
  local kept = redis.call('HMGET', rule.key, 'until', 'count')
  rule.ends, rule.count = tonumber(kept[1] or 0), tonumber(kept[2] or 0)
  if rule.ends <= now then
    rule.ends, rule.count = now + rule.window, 0
  elseif rule.ends > now + rule.window then
    rule.ends = now + rule.window
    redis.call('HSET', rule.key, 'until', whole(rule.ends))
  end
  local left, more = math.max(0, rule.amount - rule.count), rule.ends - now
  return left, more, cost > left and more or 0
end

local function spend(rule)
  redis.call('HSET', rule.key, 'until', whole(rule.ends), 'count', rule.count + cost)
  return rule.ends - now
end
"""

SLIDING = """
local function until_room(rule, wanted)
  local over = rule.amount - rule.current - wanted + 1
  if over > 0 then return math.max(1, rule.ends - over * rule.window / rule.previous + 1) end
  return rule.ends + math.max(0, rule.window - (rule.amount - wanted + 1) * rule.window / rule.current) + 1
end

local function room(rule)
  local kept = redis.call('HMGET', rule.key, 'start', 'previous', 'current')
  local start, previous, current = tonumber(kept[1] or now), tonumber(kept[2] or 0), tonumber(kept[3] or 0)
  if start > now then
    start = now
    redis.call('HSET', rule.key, 'start', whole(now))
  elseif now - start >= 2 * rule.window then
    start, previous, current = now, 0, 0
  elseif now - start >= rule.window then
    start, previous, current = start + rule.window, current, 0
  end
  rule.start, rule.previous, rule.current = start, previous, current
  rule.ends = start + rule.window - now
  local left = math.max(0, rule.amount - math.floor(previous * rule.ends / rule.window) - current)
  return left, left > 0 and rule.ends or until_room(rule, 1), cost > left and until_room(rule, cost) or 0
end

local function spend(rule)
  redis.call('HSET', rule.key, 'start', whole(rule.start), 'previous', rule.previous,
    'current', rule.current + cost)
  return rule.ends + rule.window
end
"""

MOVING = """
local function room(rule)
  local key, from = rule.key, now - rule.window
  local count, newest = redis.call('LLEN', key), redis.call('LINDEX', key, -1)
  if newest and tonumber(newest) > now then
    redis.call('DEL', key)
    for _ = 1, count do redis.call('RPUSH', key, whole(now)) end
    redis.call('PEXPIRE', key, math.ceil(rule.window / 1000) + 1)
  end
  local oldest = redis.call('LINDEX', key, 0)
  while oldest and tonumber(oldest) <= from do
    redis.call('LPOP', key)
    count = count - 1
    oldest = redis.call('LINDEX', key, 0)
  end
  local left, more, wait = math.max(0, rule.amount - count), rule.window, 0
  if oldest then more = tonumber(oldest) - from end
  if cost > left then
    wait = (tonumber(redis.call('LINDEX', key, count + cost - rule.amount - 1)) or now) - from
  end
  return left, more, wait
end

local function spend(rule)
  for _ = 1, cost do redis.call('RPUSH', rule.key, whole(now)) end
  return rule.window
end
"""

BUCKET = """
local function room(rule)
  local kept = redis.call('HMGET', rule.key, 'debt', 'at')
  local debt, at = tonumber(kept[1] or 0), tonumber(kept[2] or now)
  if at > now then
    at = now
    redis.call('HSET', rule.key, 'at', whole(now))
  end
  rule.debt = math.max(0, debt - (now - at) * rule.amount)
  local free = rule.burst * rule.window - rule.debt
  local left = math.floor(free / rule.window)
  local more = ((left + 1) * rule.window - free) / rule.amount + 1
  return left, more, cost > left and (cost * rule.window - free) / rule.amount + 1 or 0
end

local function spend(rule)
  rule.debt = rule.debt + cost * rule.window
  redis.call('HSET', rule.key, 'debt', whole(rule.debt), 'at', whole(now))
  return rule.debt / rule.amount
end
"""

HEAD = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost = tonumber(ARGV[1])

local function whole(number) return string.format('%.0f', number) end
"""

DECIDE = """
local rules, reply, longest = {}, {1, 0}, 0
for i, key in ipairs(KEYS) do
  local amount, window, burst = ARGV[3 * i], ARGV[3 * i + 1], ARGV[3 * i + 2]
  rules[i] = {key = key, amount = tonumber(amount), window = window * 1000000, burst = tonumber(burst)}
  local left, more, wait = room(rules[i])
  longest = math.max(longest, wait)
  reply[2 * i + 1], reply[2 * i + 2] = left, math.ceil(more)
end
if longest > 0 then
  reply[1], reply[2] = 0, math.ceil(longest)
elseif ARGV[2] == '1' then
  for i, rule in ipairs(rules) do
    redis.call('PEXPIRE', rule.key, whole(math.ceil(spend(rule) / 1000) + 1))
    reply[2 * i + 1] = reply[2 * i + 1] - cost
  end
end
return reply
"""

SOURCES: dict[WindowKind, str] = {"fixed": FIXED, "sliding": SLIDING, "moving": MOVING, "bucket": BUCKET}


async def decide(
    window: WindowKind, memory: MemoryStore, keys: Sequence[str], args: Sequence[Arg]
) -> list[int]:
    """The twin of the scripts: the limiter of one process."""
    cost, take, *numbers = (int(arg) for arg in args)
    rules = tuple(
        Rule(Rate(amount, period), burst)
        for amount, period, burst in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    )
    key = ("rate_limit", window, tuple(numbers))
    limiter = memory.place(key, lambda: Limiter(rules, window, memory.now, 200_000))
    verdict = await limiter.decide(keys[0], cost, take=bool(take))
    reply = [int(verdict.admitted), ceil(verdict.wait * 1e6)]
    for left, more in verdict.standing:
        reply += [left, more * 1_000_000]
    return reply


def script(window: WindowKind) -> Script:
    return Script(f"rate_limit {window}", HEAD + SOURCES[window] + DECIDE, partial(decide, window))


class SharedLimiter:
    """Some rules and one script in a store. What happens while the store is away is `on_error`."""

    at_once: AtOnce | None = None

    def __init__(
        self,
        store: Store,
        script: Script,
        rules: Sequence[Rule],
        base: str,
        otherwise: Counter,
        on_error: OnError,
    ) -> None:
        self._store = store
        self._script = script
        self._base = base
        self._suffixes = [rule.suffix for rule in rules]
        self._args = [number for rule in rules for number in (rule.amount, rule.get_expiry(), rule.burst)]
        self._otherwise = otherwise
        self._on_error = on_error

    async def decide(self, caller: str, cost: int = 1, *, take: bool = True) -> Verdict:
        try:
            return await self.ask(caller, cost, take=take)
        except StoreError:
            if self._on_error == "closed":
                raise
            if self._on_error == "open":
                return Verdict(True, 0.0, (), True)
            return (await self._otherwise.decide(caller, cost, take=take))._replace(away=True)

    async def ask(self, caller: str, cost: int = 1, *, take: bool = True) -> Verdict:
        """What the store decides; StoreError if it is away."""
        # In braces: what Redis Cluster hashes, so that all keys of one decision are in one place.
        name = f"{self._base}{{{caller}}}"
        keys = [name + suffix for suffix in self._suffixes]
        admitted, wait, *rest = await self._store.run(self._script, keys, [cost, int(take), *self._args])
        standing = [(left, -(-more // 1_000_000)) for left, more in zip(rest[::2], rest[1::2], strict=True)]
        return Verdict(bool(admitted), wait / 1e6, standing)
