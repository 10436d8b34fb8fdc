-- Events that are in nothing but the feed, and have left it. after, up to and with
DELETE FROM [events] WHERE seq > ? AND seq <= ? AND keep = 0
