"""HTTPS on a local network: the gateway's certificates, its door, the installation page and its name."""
