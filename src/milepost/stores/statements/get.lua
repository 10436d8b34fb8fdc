-- Read one record.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; the id
-- Reply    the text of the record, or nothing when there is none
return look(ARGV[2])
