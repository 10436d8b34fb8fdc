"""Keys, principals, share links, host and origin checks, quotas and the audit log."""
