-- Keep a number of the namespace. name, value
INSERT INTO [state] VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value
