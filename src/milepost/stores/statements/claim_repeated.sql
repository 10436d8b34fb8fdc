-- What a claim was answered with. worker, op, now
SELECT ids FROM [claims] WHERE worker = ? AND op = ? AND until > ?
