-- Take the setting of a queue away. queue
DELETE FROM [limits] WHERE queue = ?
