"""What milepost costs, measured side by side with its peers and with the least that any client can spend."""
