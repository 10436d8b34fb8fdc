-- How many live leases each worker has.
SELECT worker, count(*) FROM [jobs] INDEXED BY [jobs_lease] WHERE lease IS NOT NULL GROUP BY worker
