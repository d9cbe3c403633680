"""What every command shares: its language, how it says that something is wrong, where the running gateway is."""
