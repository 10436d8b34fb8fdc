-- What has expired on the shelf. now
DELETE FROM [shelf] WHERE until <= ?
