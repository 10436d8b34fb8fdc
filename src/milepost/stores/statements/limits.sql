-- The limits set for queues.
SELECT queue, most, paused FROM [limits]
