-- How many leases a slot has, live and stopping. :slot
SELECT (SELECT count(*) FROM [jobs] WHERE slot = :slot) + (SELECT count(*) FROM [stops] WHERE slot = :slot)
