-- Who created what went: long enough ago to forget. now
DELETE FROM [tombstones] WHERE until <= ?
