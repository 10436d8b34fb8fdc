"""The store in Redis or Valkey: one server, Sentinel or Cluster."""

from milepost.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
