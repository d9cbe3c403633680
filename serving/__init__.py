"""What both web servers share: people and PINs, sessions, CSRF, live events, limits, security headers."""
