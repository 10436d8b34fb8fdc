"""Jobs in Redis or Valkey: one server, Sentinel or Cluster. Owns nothing: see `store` for the verbs.

=============  =====================================================================================
`store`        the verbs of `protocol.Store`
`side`         the verbs beside the jobs: shelf, limits, sweep, examination
`shapes`       shapes as the scripts take them
`names`        ids as they are stored, texts as they come back
`scripts`      the Lua files, and in which form each is sent
`port`         one request until it is answered: retries, redirections, what an error means
`dialing`      from a URL to a connection: Sentinel, Cluster
`blocking`     the port's wires for threads
`asynchronous` the port's wires for event loops
=============  =====================================================================================
"""

from milepost.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
