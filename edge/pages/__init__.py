"""What the gateway's pages ask for: JSON, live events, sign-in. No SQL and no rules here."""
